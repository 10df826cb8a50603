/*
 * A camera pipeline. It starts its algorithm in a new user and network namespace, and for each frame sends it statistics, which
 * lie in shared memory, with a descriptor of the frame. The algorithm answers with controls for the next frame.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <sealane.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "statistics.h"

static void check(int status, const char *what) {
    if (status < 0) {
        fprintf(stderr, "%s: %s\n", what, sealane_last_error());
        exit(1);
    }
}

/* Executes `program NAME`, which inherits the child's end, in namespaces of its own where the kernel allows that. */
static pid_t start(const char *program, sealane_handshake *handshake) {
    char name[SEALANE_NAME_SIZE];
    check(sealane_handshake_child_name(handshake, name, sizeof name), "child's name");
    int fd = sealane_handshake_child_fd(handshake);
    struct clone_args arguments = {.flags = CLONE_NEWUSER | CLONE_NEWNET, .exit_signal = SIGCHLD};
    pid_t child = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child < 0) {
        fprintf(stderr, "no namespaces (%s): the algorithm is not isolated\n", strerror(errno));
        child = fork();
    }
    if (child == 0) {
        fcntl(fd, F_SETFD, 0);
        execl(program, program, name, (char *)NULL);
        _exit(127);
    }
    return child;
}

/* Brightness grows with the exposure. */
static void measure(uint32_t *zones, uint64_t exposure_us) {
    for (int i = 0; i < ZONES; i++) zones[i] = (uint32_t)(exposure_us / 80 + i % 3);
}

static int send_frame(sealane_channel *channel, const struct frame *frame, int buffer) {
    sealane_loan *loan;
    int status = sealane_loan_open(channel, ZONES * sizeof(uint32_t), 0, &loan);
    if (status < 0) return status; /* -EAGAIN: the algorithm is behind. This frame has no statistics. */
    measure(sealane_loan_data(loan), frame->exposure_us);
    status = sealane_loan_request(&loan, frame, sizeof *frame, &buffer, 1, 0, NULL);
    sealane_loan_free(&loan);
    return status;
}

int main(int argc, char **argv) {
    int frames = argc > 2 ? atoi(argv[2]) : 60;
    sealane_handshake *handshake;
    sealane_channel *channel;
    sealane_message *message;
    signal(SIGPIPE, SIG_IGN);
    check(sealane_prepare(NULL, &handshake), "prepare");
    pid_t child = start(argc > 1 ? argv[1] : "./algorithm", handshake);
    check(sealane_handshake_child_started(handshake), "start");
    check(sealane_handshake_finish(&handshake, &channel), "handshake");

    /* A question with an answer: how the algorithm is called. */
    check(sealane_call(channel, "name?", 5, NULL, 0, 1000, &message), "call");
    size_t len;
    const char *name = sealane_message_control(message, &len);
    printf("algorithm: %.*s\n", (int)len, name);
    sealane_message_free(&message);

    int buffer = memfd_create("frame", MFD_CLOEXEC);
    struct frame frame = {.id = 0, .exposure_us = 1000};
    check(send_frame(channel, &frame, buffer), "first frame");
    struct pollfd loop = {.fd = sealane_channel_recv_fd(channel), .events = POLLIN};
    for (int answered = 0; answered < frames;) {
        /* All that has come, until -EAGAIN: only then the descriptor is armed. */
        int status;
        while ((status = sealane_recv(channel, 0, &message)) == 0) {
            struct controls controls;
            const void *bytes = sealane_message_control(message, &len);
            if (len != sizeof controls) {
                fprintf(stderr, "controls of %zu bytes expected, %zu found\n", sizeof controls, len);
                return 1;
            }
            memcpy(&controls, bytes, sizeof controls);
            sealane_message_free(&message);
            frame = (struct frame){.id = controls.id + 1, .exposure_us = controls.exposure_us};
            if (++answered < frames) check(send_frame(channel, &frame, buffer), "frame");
        }
        if (status != -EAGAIN) check(status, "receive");
        if (answered < frames && poll(&loop, 1, 1000) <= 0) {
            fprintf(stderr, "the algorithm does not answer\n");
            return 1;
        }
    }
    printf("after %d frames: exposure %llu us\n", frames, (unsigned long long)frame.exposure_us);
    close(buffer);
    sealane_channel_free(&channel);
    int status;
    return waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
}
