/* An algorithm: reads the statistics of each frame, and answers with the next exposure. `algorithm NAME`; pipeline starts it. */
#include <errno.h>
#include <sealane.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "statistics.h"

static void check(int status, const char *what) {
    if (status < 0) {
        fprintf(stderr, "algorithm: %s: %s\n", what, sealane_last_error());
        exit(1);
    }
}

/* Blocks are private copies, so what is checked stays so. Their lengths are multiples of 4, except for a hostile pipeline's. */
static int add(void *context, const void *bytes, size_t len) {
    uint64_t *sum = context;
    for (size_t i = 0; i + sizeof(uint32_t) <= len; i += sizeof(uint32_t)) {
        uint32_t zone;
        memcpy(&zone, (const char *)bytes + i, sizeof zone);
        *sum += zone;
    }
    return 0;
}

int main(int argc, char **argv) {
    sealane_channel *channel;
    sealane_message *message;
    check(sealane_inherited_as(NULL, argc > 1 ? argv[1] : NULL, &channel), "inherit");
    int status;
    while ((status = sealane_recv(channel, -1, &message)) == 0) {
        uint64_t request = 0, sum = 0;
        size_t len;
        const void *control = sealane_message_control(message, &len);
        if (sealane_message_expects_reply(message, &request) != 1) {
            sealane_message_free(&message);
            continue;
        }
        if (sealane_message_has_payload(message) != 1) {
            check(sealane_reply(channel, request, "auto exposure", 13, NULL, 0, -1), "reply");
        } else {
            struct frame frame;
            if (len != sizeof frame) break;
            memcpy(&frame, control, sizeof frame);
            check(sealane_message_blocks(message, add, &sum), "read");
            uint64_t mean = sum / ZONES, exposure = frame.exposure_us;
            if (mean > 0) exposure += exposure * TARGET / mean;
            struct controls controls = {.id = frame.id, .exposure_us = exposure / 2};
            check(sealane_reply(channel, request, &controls, sizeof controls, NULL, 0, -1), "reply");
        }
        /* The frame's descriptor, which was not taken, is closed with the message. */
        sealane_message_free(&message);
    }
    if (status != 0 && status != -EPIPE) check(status, "receive");
    sealane_channel_free(&channel);
    return 0;
}
