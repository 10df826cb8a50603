/* The messages between the Rust example `camera` and its algorithm: examples/camera/protocol.rs, in C. */
#ifndef CAMERA_PROTOCOL_H
#define CAMERA_PROTOCOL_H

#include <stdint.h>

/* The most frame buffers that the algorithm accepts. */
#define BUFFERS 4
/* Red, green and blue. */
#define PLANES 3
/* The longest edge of a frame, in pixels: every sum in the statistics then fits into its field. */
#define MAX_EDGE 4096

/* The control bytes that come once, with a descriptor per frame buffer. A buffer's id is its place among them. */
struct registration {
    uint32_t width;
    uint32_t height;
    /* Bytes from a row to the next for dmabufs of YUYV; 0 for memfds of planes. */
    uint32_t stride;
    uint32_t has_colour_gains;
};

/* How to take a frame. */
struct settings {
    double exposure_us;
    double analogue_gain;
    double red_gain;
    double blue_gain;
};

#define MIN_EXPOSURE_US 50.0
#define MAX_EXPOSURE_US 33000.0
#define MAX_ANALOGUE_GAIN 16.0
#define MIN_COLOUR_GAIN 0.125
#define MAX_COLOUR_GAIN 8.0

/* The control bytes of a frame. Its payload is `struct histograms`, and then `struct zone` for each row and column. */
struct frame_ready {
    uint64_t frame;
    /* The buffer that holds the frame; no process writes to it until the answer. */
    uint32_t buffer;
    uint32_t columns;
    uint32_t rows;
    uint32_t reserved;
    struct settings settings;
};

struct histograms {
    uint32_t counts[PLANES][256];
};

/* From this value on, a pixel is saturated. */
#define SATURATED 250
/* Below this value in every plane, a pixel is mostly noise. */
#define DARK 6

/* The measurements of one part of a frame. */
struct zone {
    uint32_t sums[PLANES];
    uint32_t pixels;
    uint32_t saturated;
    uint32_t dark;
    /* The sum of the squared differences between neighbours in the green plane. */
    uint64_t focus;
};

/* The algorithm's measurements of a frame. */
struct observation {
    double mean_luma;
    double red_to_green;
    double blue_to_green;
    double focus;
};

/* The answer to a frame. */
struct controls {
    uint64_t frame;
    /* Whether exposure and white balance were right in that frame. */
    uint32_t converged;
    /* Whether the statistics agree with the content of the frame's buffer. */
    uint32_t buffer_agrees;
    /* Forbidden acts that a sandboxed algorithm tried, and how many of them it was refused. */
    uint32_t acts_tried;
    uint32_t acts_refused;
    /* How to take the next frame. */
    struct settings next;
    struct observation observed;
};

/* The request at the end, which is answered with the same once all buffers are closed. */
struct revoke {
    uint32_t buffers;
};

_Static_assert(sizeof(struct registration) == 16, "differs from Register in protocol.rs");
_Static_assert(sizeof(struct settings) == 32, "differs from Settings in protocol.rs");
_Static_assert(sizeof(struct frame_ready) == 56, "differs from FrameReady in protocol.rs");
_Static_assert(sizeof(struct histograms) == 3072, "differs from Histograms in statistics.rs");
_Static_assert(sizeof(struct zone) == 32, "differs from Zone in statistics.rs");
_Static_assert(sizeof(struct observation) == 32, "differs from Observation in protocol.rs");
_Static_assert(sizeof(struct controls) == 88, "differs from Controls in protocol.rs");
_Static_assert(sizeof(struct revoke) == 4, "differs from Revoke in protocol.rs");

#endif
