// A panic of the library ends the program: it neither unwinds into C++, nor goes on.
#include <cerrno>
#include <cstdio>
#include <ctime>

#include "sealane.h"

static bool broken = false;

// The clock that the library reads: the shared library finds the program's functions first. A clock that fails is one of the
// few things that make the library panic.
extern "C" int clock_gettime(clockid_t, struct timespec *time) noexcept {
    time->tv_sec = 1;
    time->tv_nsec = 0;
    errno = EINVAL;
    return broken ? -1 : 0;
}

struct Unwound {
    ~Unwound() { std::puts("unwound"); }
};

int main() {
    sealane_channel *a = nullptr, *b = nullptr;
    sealane_message *message = nullptr;
    std::setbuf(stdout, nullptr);
    if (sealane_pair(nullptr, &a, &b) != 0) return 1;
    Unwound unwound;
    try {
        broken = true;
        sealane_recv(a, 1000, &message);
        std::puts("returned");
    } catch (...) {
        std::puts("caught");
    }
    return 0;
}
