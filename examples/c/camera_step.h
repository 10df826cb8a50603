/* Auto exposure and auto white balance: examples/camera/algorithm.rs, in C. */
#ifndef CAMERA_STEP_H
#define CAMERA_STEP_H

#include <stdbool.h>
#include <stdint.h>

#include "camera_protocol.h"

/* The statistics of a frame: its histograms, and sums over all zones. */
struct statistics {
    struct histograms histograms;
    /* Colour sums of the zones that are neither clipped nor dark. */
    uint64_t trusted[PLANES];
    /* Colour sums of those among them that are nearly grey. */
    uint64_t near_grey[PLANES];
    uint64_t near_grey_pixels;
    uint64_t pixels;
    double focus;
};

/* Adds a zone, which may hold any numbers: no sum can overflow. */
void add_zone(struct statistics *statistics, const struct zone *zone);

/*
 * Writes a frame's observation, and the next settings, which follow from those with which the frame was taken. Earlier frames
 * have no influence: an answer that comes late is still right.
 */
void step(const struct statistics *statistics, const struct settings *taken_with, bool has_colour_gains,
          struct controls *controls);

#endif
