#include "camera_step.h"

#include <math.h>
#include <stddef.h>

/* Middle grey in linear light: 18 % of white. */
#define TARGET_LUMA (0.18 * 255.0)
/* The part of the way to the target that one step takes, in logarithms. */
#define DAMPING 0.8
/* Shares of the targets. */
#define EXPOSURE_TOLERANCE 0.1
#define COLOUR_TOLERANCE 0.03

static double clamp(double value, double least, double most) { return fmin(fmax(value, least), most); }

static bool is_near_grey(uint64_t sum, uint64_t green) { return 3 * sum > 2 * green && 2 * sum < 3 * green; }

void add_zone(struct statistics *statistics, const struct zone *zone) {
    statistics->focus += (double)zone->focus;
    statistics->pixels += zone->pixels;
    /* Clipped pixels would pull the balance towards white, dark ones towards the noise. */
    if (zone->saturated > zone->pixels / 16 || zone->dark > zone->pixels / 2) return;
    bool near_grey = is_near_grey(zone->sums[0], zone->sums[1]) && is_near_grey(zone->sums[2], zone->sums[1]);
    if (near_grey) statistics->near_grey_pixels += zone->pixels;
    for (size_t plane = 0; plane < PLANES; plane++) {
        statistics->trusted[plane] += zone->sums[plane];
        if (near_grey) statistics->near_grey[plane] += zone->sums[plane];
    }
}

/* Pixels with values from `least` on. */
static uint64_t count_from(const uint32_t *counts, size_t least) {
    uint64_t count = 0;
    for (size_t value = least; value < 256; value++) count += counts[value];
    return count;
}

static double mean_luma(const struct histograms *histograms) {
    static const double weights[PLANES] = {0.299, 0.587, 0.114}; /* Rec. 601. */
    double luma = 0;
    for (size_t plane = 0; plane < PLANES; plane++) {
        const uint32_t *counts = histograms->counts[plane];
        uint64_t sum = 0, pixels = count_from(counts, 0);
        for (uint64_t value = 0; value < 256; value++) sum += value * counts[value];
        if (pixels > 0) luma += weights[plane] * ((double)sum / (double)pixels);
    }
    return luma;
}

/* Red or blue in relation to green; neutral where nothing can be said. */
static double ratio(uint64_t sum, uint64_t green) {
    return sum > 0 && green > 0 ? (double)sum / (double)green : 1.0;
}

static struct observation observe(const struct statistics *statistics) {
    /* Enough grey is a better measure: a coloured object that fills the frame would pull the balance. */
    bool is_grey = statistics->near_grey_pixels > statistics->pixels / 8;
    const uint64_t *sums = is_grey ? statistics->near_grey : statistics->trusted;
    return (struct observation){
        .mean_luma = mean_luma(&statistics->histograms),
        .red_to_green = ratio(sums[0], sums[1]),
        .blue_to_green = ratio(sums[2], sums[1]),
        .focus = statistics->focus / fmax((double)statistics->pixels, 1.0),
    };
}

static void expose(struct settings *next, double luma, bool is_clipped) {
    double change = pow(TARGET_LUMA / fmax(luma, 0.5), DAMPING);
    /* The mean does not show how far above white the clipped pixels were. */
    if (is_clipped) change = fmin(change, 0.5);
    double total = next->exposure_us * next->analogue_gain * change;
    /* Light before amplification: gain only where the frame time is used up. */
    next->exposure_us = clamp(total, MIN_EXPOSURE_US, MAX_EXPOSURE_US);
    next->analogue_gain = clamp(total / next->exposure_us, 1.0, MAX_ANALOGUE_GAIN);
}

static bool is_neutral(double ratio) { return fabs(ratio - 1.0) <= COLOUR_TOLERANCE; }

static double rebalanced(double gain, double ratio) {
    return clamp(gain * pow(ratio, -DAMPING), MIN_COLOUR_GAIN, MAX_COLOUR_GAIN);
}

void step(const struct statistics *statistics, const struct settings *taken_with, bool has_colour_gains,
          struct controls *controls) {
    struct observation observed = observe(statistics);
    struct settings next = *taken_with;
    bool exposed = fabs(observed.mean_luma / TARGET_LUMA - 1.0) <= EXPOSURE_TOLERANCE;
    bool balanced = !has_colour_gains || (is_neutral(observed.red_to_green) && is_neutral(observed.blue_to_green));
    if (!exposed) {
        const uint32_t *green = statistics->histograms.counts[1];
        expose(&next, observed.mean_luma, 4 * count_from(green, SATURATED) > count_from(green, 0));
    }
    if (!balanced) {
        next.red_gain = rebalanced(next.red_gain, observed.red_to_green);
        next.blue_gain = rebalanced(next.blue_gain, observed.blue_to_green);
    }
    controls->converged = exposed && balanced;
    controls->next = next;
    controls->observed = observed;
}
