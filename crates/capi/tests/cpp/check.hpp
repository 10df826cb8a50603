// Checks of the C++ tests. Each prints its place and ends the program.
#ifndef CHECK_HPP
#define CHECK_HPP

#include <sealane.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#define CHECK(condition)                                                                                                    \
    do {                                                                                                                    \
        if (!(condition)) {                                                                                                 \
            std::fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, sealane::last_error());                \
            std::exit(1);                                                                                                   \
        }                                                                                                                   \
    } while (0)

// The value of a call, which succeeds.
template <typename T> T good(sealane::Result<T> result, int line) {
    if (!result.has_value()) {
        std::fprintf(stderr, "line %d: %s (errno %d)\n", line, result.error().message(), result.error().number());
        std::exit(1);
    }
    CHECK(result.error() == 0);
    if constexpr (!std::is_void_v<T>) return *std::move(result);
}
#define GOOD(call) good((call), __LINE__)

// The call fails with this errno, and its sentence has this text.
#define FAILS(call, number_, text)                                                                                          \
    do {                                                                                                                    \
        auto result_ = (call);                                                                                              \
        CHECK(!result_.has_value());                                                                                        \
        if (result_.error() != (number_) || !std::strstr(result_.error().message(), text)) {                                \
            std::fprintf(stderr, "%s:%d: %s: %s expected, %s (errno %d) found\n", __FILE__, __LINE__, #call, #number_,      \
                         result_.error().message(), result_.error().number());                                              \
            std::exit(1);                                                                                                   \
        }                                                                                                                   \
    } while (0)

#endif
