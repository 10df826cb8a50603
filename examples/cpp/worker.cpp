// An algorithm: answers each frame with the next exposure. `worker NAME`; host starts it.
#include "ipc_pipe.hpp"
#include "statistics.hpp"

#include <cstdio>
#include <cstdlib>
#include <poll.h>
#include <unistd.h>

static void check(const sealane::Result<void> &result, const char *what) {
    if (result) return;
    std::fprintf(stderr, "worker: %s: %s\n", what, result.error().message());
    std::exit(1);
}

int main(int argc, char **argv) {
    IpcPipe pipe;
    int status = 0;
    check(argc > 1 ? pipe.inherit(argv[1]) : sealane::Error(EINVAL, "the name of a descriptor expected"), "inherit");
    pipe.died = [&](const sealane::Error &error) { status = error == EPIPE ? 0 : 1; };
    pipe.received = [&](IpcMessage &message) {
        switch (message.command()) {
        case configure: check(pipe.reply(message, "auto exposure"), "reply"); break;
        case process: {
            // What is checked stays so: the bytes are a private copy.
            auto frame = message.as<Frame>();
            if (!frame || message.take_fds().size() != 1) std::exit(1);
            std::uint64_t sum = 0;
            for (std::uint32_t zone : frame->zones) sum += zone;
            std::uint64_t mean = sum / std::size(frame->zones), exposure = frame->exposure_us;
            if (mean > 0) exposure += exposure * target / mean;
            Controls answer{frame->id, exposure / 2};
            check(pipe.send_async(controls, sealane::bytes_of(answer)), "controls");
            break;
        }
        case crash: _exit(3);
        default: break;
        }
    };
    while (pipe.is_connected()) {
        pollfd loop{pipe.fd(), POLLIN, 0};
        if (::poll(&loop, 1, -1) == 1) pipe.dispatch();
    }
    return status;
}
