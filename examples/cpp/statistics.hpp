// The messages of a camera pipeline and its isolated algorithm.
#ifndef STATISTICS_HPP
#define STATISTICS_HPP

#include <cstdint>

enum Command : std::uint32_t {
    // A call, answered with the algorithm's name.
    configure = 1,
    // A Frame, with a descriptor of its buffer; answered with controls.
    process,
    // Controls for the next frame.
    controls,
    // A call that ends the worker, to show what that is like.
    crash,
};

struct Frame {
    std::uint64_t id;
    std::uint64_t exposure_us;
    // The mean brightness of each zone.
    std::uint32_t zones[4096];
};

struct Controls {
    std::uint64_t id;
    std::uint64_t exposure_us;
};

// The brightness to which the algorithm steers.
inline constexpr std::uint64_t target = 128;

#endif
