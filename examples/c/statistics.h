/* What a pipeline and its algorithm say to each other. */
#ifndef STATISTICS_H
#define STATISTICS_H

#include <stdint.h>

#define ZONES 4096

/* The control bytes of a message with statistics, whose payload is `uint32_t[ZONES]`. */
struct frame {
    uint64_t id;
    uint64_t exposure_us;
};

/* The control bytes of a reply. */
struct controls {
    uint64_t id;
    uint64_t exposure_us;
};

/* The brightness to which the algorithm steers. */
#define TARGET 128

#endif
