/*
 * The algorithm of the Rust example `camera`, auto exposure and auto white balance, in C. The pipeline starts it:
 *
 *     cargo run --release --example camera -- --algorithm-program examples/c/camera_algorithm
 *
 * Everything that the pipeline sends is copied once, checked and then used.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sealane.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "camera_protocol.h"
#include "camera_step.h"

/* The camera as the pipeline describes it. `buffer_count` is 0 until the registration. */
struct camera {
    size_t width, height;
    bool has_colour_gains;
    int buffers[BUFFERS];
    size_t buffer_count;
};

_Noreturn static void __attribute__((format(printf, 1, 2))) fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("camera_algorithm: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static void check(int status, const char *what) {
    if (status < 0) fail("%s: %s", what, sealane_last_error());
}

/* Copies the control bytes, which have to be one structure. */
static void copy_control(sealane_message *message, void *structure, size_t size, const char *name) {
    size_t len;
    const void *bytes = sealane_message_control(message, &len);
    if (len != size) fail("control bytes of %s: %zu expected, %zu found", name, size, len);
    memcpy(structure, bytes, size);
}

/* Reading a memfd that keeps its size is prompt and whole; another file could be on a server that does not answer. */
static void check_buffer(const struct camera *camera, size_t id) {
    const int needed = F_SEAL_SHRINK | F_SEAL_GROW;
    int seals = fcntl(camera->buffers[id], F_GET_SEALS);
    if (seals < 0 || (seals & needed) != needed) {
        fail("frame buffer %zu: a memfd that keeps its size expected, another file found", id);
    }
    struct stat file;
    if (fstat(camera->buffers[id], &file) < 0) fail("frame buffer %zu: %s", id, strerror(errno));
    long long expected = (long long)(PLANES * camera->width * camera->height), found = file.st_size;
    if (found < expected) fail("frame buffer %zu: %lld bytes expected, %lld found", id, expected, found);
}

static void register_buffers(struct camera *camera, sealane_message *message) {
    struct registration found;
    copy_control(message, &found, sizeof found, "a registration");
    if (camera->buffer_count > 0) fail("one registration expected, a second one found");
    if (found.width < 1 || found.width > MAX_EDGE || found.height < 1 || found.height > MAX_EDGE) {
        fail("frames of 1 to %dx%d pixels expected, %ux%u found", MAX_EDGE, MAX_EDGE, found.width, found.height);
    }
    if (found.stride != 0) {
        fail("memfds of planes expected, dmabufs of YUYV found: the algorithm in Rust reads those, this one does not");
    }
    camera->width = found.width;
    camera->height = found.height;
    camera->has_colour_gains = found.has_colour_gains != 0;
    /* The channel lets no more than BUFFERS through. */
    int count = sealane_message_take_fds(message, camera->buffers, BUFFERS);
    check(count, "take the frame buffers");
    if (count == 0) fail("1 to %d frame buffers expected, none found", BUFFERS);
    camera->buffer_count = (size_t)count;
    for (size_t id = 0; id < camera->buffer_count; id++) check_buffer(camera, id);
}

/* Pixels of a frame along one edge, from `start` to before `end`. */
struct range {
    size_t start, end;
};

/* The pixels of part `index` out of `count`: one at least, since a grid may be finer than the frame. */
static struct range share(size_t index, size_t count, size_t pixels) {
    size_t start = index * pixels / count, end = (index + 1) * pixels / count;
    return (struct range){start, end > start ? end : start + 1};
}

/* Measures one row of zones in the frame buffer itself. */
static void measure(const struct camera *camera, int buffer, struct range lines, struct zone *zones, size_t count) {
    static struct zone columns[MAX_EDGE]; /* One for each column of pixels. */
    static uint8_t line[PLANES][MAX_EDGE];
    size_t width = camera->width;
    memset(columns, 0, sizeof columns);
    for (size_t y = lines.start; y < lines.end; y++) {
        for (size_t plane = 0; plane < PLANES; plane++) {
            off_t offset = (off_t)((plane * camera->height + y) * width);
            ssize_t read = pread(buffer, line[plane], width, offset);
            if (read < 0) fail("read a frame buffer: %s", strerror(errno));
            if ((size_t)read != width) fail("read a frame buffer: %zu bytes expected, %zd found", width, read);
        }
        for (size_t x = 0; x < width; x++) {
            uint8_t brightest = 0;
            for (size_t plane = 0; plane < PLANES; plane++) {
                uint8_t value = line[plane][x];
                columns[x].sums[plane] += value;
                if (value > brightest) brightest = value;
            }
            int edge = x + 1 < width ? line[1][x + 1] - line[1][x] : 0;
            columns[x].pixels += 1;
            columns[x].saturated += brightest >= SATURATED;
            columns[x].dark += brightest < DARK;
            columns[x].focus += (uint64_t)(edge * edge);
        }
    }
    memset(zones, 0, count * sizeof *zones);
    for (size_t i = 0; i < count; i++) {
        struct range part = share(i, count, width);
        for (size_t x = part.start; x < part.end; x++) {
            for (size_t plane = 0; plane < PLANES; plane++) zones[i].sums[plane] += columns[x].sums[plane];
            zones[i].pixels += columns[x].pixels;
            zones[i].saturated += columns[x].saturated;
            zones[i].dark += columns[x].dark;
            zones[i].focus += columns[x].focus;
        }
    }
}

/* Copies and checks the histograms: each has to count every pixel of the frame. */
static void read_histograms(const struct camera *camera, sealane_message *message, struct histograms *histograms) {
    check(sealane_message_copy(message, 0, histograms, sizeof *histograms), "read the histograms");
    uint64_t expected = camera->width * camera->height;
    for (size_t plane = 0; plane < PLANES; plane++) {
        uint64_t count = 0;
        for (size_t value = 0; value < 256; value++) count += histograms->counts[plane][value];
        if (count != expected) {
            fail("histogram %zu: a count of %llu pixels expected, %llu found", plane, (unsigned long long)expected,
                 (unsigned long long)count);
        }
    }
}

/* Reads the zones, a row at a time. Returns whether one row, another in each frame, agrees with the frame buffer. */
static bool read_zones(const struct camera *camera, sealane_message *message, const struct frame_ready *ready,
                       struct statistics *statistics) {
    size_t columns = ready->columns, row_size = columns * sizeof(struct zone), checked = ready->frame % ready->rows;
    struct zone *received = malloc(row_size), *measured = malloc(row_size);
    if (received == NULL || measured == NULL) fail("no memory for a row of %zu zones", columns);
    measure(camera, camera->buffers[ready->buffer], share(checked, ready->rows, camera->height), measured, columns);
    bool agrees = false;
    for (size_t row = 0; row < ready->rows; row++) {
        size_t offset = sizeof(struct histograms) + row * row_size;
        check(sealane_message_copy(message, offset, received, row_size), "read a row of zones");
        for (size_t i = 0; i < columns; i++) add_zone(statistics, &received[i]);
        if (row == checked) agrees = memcmp(received, measured, row_size) == 0;
    }
    free(received);
    free(measured);
    return agrees;
}

/* Whether a sensor can do this; a sensor cannot do a NaN. */
static bool is_valid(const struct settings *settings) {
    return settings->exposure_us >= MIN_EXPOSURE_US && settings->exposure_us <= MAX_EXPOSURE_US &&
           settings->analogue_gain >= 1.0 && settings->analogue_gain <= MAX_ANALOGUE_GAIN &&
           settings->red_gain >= MIN_COLOUR_GAIN && settings->red_gain <= MAX_COLOUR_GAIN &&
           settings->blue_gain >= MIN_COLOUR_GAIN && settings->blue_gain <= MAX_COLOUR_GAIN;
}

static struct controls examine(const struct camera *camera, sealane_message *message) {
    struct frame_ready ready;
    copy_control(message, &ready, sizeof ready, "a frame");
    if (camera->buffer_count == 0) fail("a registration expected before a frame, none found");
    if (ready.buffer >= camera->buffer_count) {
        fail("a frame buffer below %zu expected, buffer %u found", camera->buffer_count, ready.buffer);
    }
    size_t len = sealane_message_payload_len(message), zones = (size_t)ready.columns * ready.rows;
    /* More zones than bytes are wrong, too, and their size could overflow. */
    if (zones == 0 || zones > len || len != sizeof(struct histograms) + zones * sizeof(struct zone)) {
        fail("statistics of %ux%u zones expected, %zu bytes found", ready.columns, ready.rows, len);
    }
    if (!is_valid(&ready.settings)) {
        fail("settings of a sensor expected, exposure %g us and gains %g, %g and %g found", ready.settings.exposure_us,
             ready.settings.analogue_gain, ready.settings.red_gain, ready.settings.blue_gain);
    }
    struct statistics statistics = {0};
    read_histograms(camera, message, &statistics.histograms);
    struct controls controls = {.frame = ready.frame};
    controls.buffer_agrees = read_zones(camera, message, &ready, &statistics);
    step(&statistics, &ready.settings, camera->has_colour_gains, &controls);
    return controls;
}

/* Closes the buffers, then replies. */
static int revoke_buffers(sealane_channel *channel, struct camera *camera, sealane_message *message, uint64_t request) {
    struct revoke found;
    copy_control(message, &found, sizeof found, "a revocation");
    if (found.buffers != camera->buffer_count) {
        fail("%zu buffers to revoke expected, %u found", camera->buffer_count, found.buffers);
    }
    for (size_t id = 0; id < camera->buffer_count; id++) close(camera->buffers[id]);
    camera->buffer_count = 0;
    return sealane_reply(channel, request, &found, sizeof found, NULL, 0, -1);
}

/* Takes one message. */
static int serve(sealane_channel *channel, struct camera *camera) {
    sealane_message *message;
    int status = sealane_recv(channel, -1, &message);
    if (status < 0) return status;
    uint64_t request;
    if (sealane_message_expects_reply(message, &request) == 1) {
        status = revoke_buffers(channel, camera, message, request);
    } else if (sealane_message_has_payload(message) == 1) {
        struct controls controls = examine(camera, message);
        /* The pipeline has its room back before the answer, so that its next frame does not wait for room. */
        sealane_message_release(message);
        status = sealane_send(channel, &controls, sizeof controls, NULL, 0, -1);
    } else {
        register_buffers(camera, message);
    }
    sealane_message_free(&message);
    return status;
}

/* The capacity of the pipeline's ring, from the arguments; 0, the default, without any. */
static uint64_t ring_capacity(int argc, char **argv) {
    if (argc == 1) return 0;
    char *end = "no number";
    bool is_given = argc == 3 && strcmp(argv[1], "--ring-capacity") == 0;
    uint64_t capacity = is_given ? strtoull(argv[2], &end, 10) : 0;
    if (*end != '\0') fail("no arguments, or --ring-capacity and a number of bytes expected");
    return capacity;
}

int main(int argc, char **argv) {
    /* Without payloads of its own, the algorithm needs no ring. */
    struct sealane_options options = {
        .size = sizeof options,
        .ring_capacity = SEALANE_NO_RING,
        .max_peer_ring_capacity = ring_capacity(argc, argv),
        .max_fds = BUFFERS,
    };
    sealane_channel *channel;
    check(sealane_inherited_as(&options, NULL, &channel), "inherit the channel");
    struct camera camera = {0};
    int status;
    do {
        status = serve(channel, &camera);
    } while (status == 0);
    if (status != -EPIPE) check(status, "talk with the pipeline");
    sealane_channel_free(&channel);
    return 0;
}
