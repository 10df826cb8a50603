/* sealane_pipe: sending before the peer is there, one descriptor for an event loop, messages of any size. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { FOR_EVER = -1 };

static int readable(sealane_pipe *pipe) {
    struct pollfd wait = {.fd = sealane_pipe_fd(pipe), .events = POLLIN};
    CHECK(wait.fd >= 0);
    return poll(&wait, 1, 0) == 1;
}

static int wait_and_dispatch(sealane_pipe *pipe) {
    struct pollfd wait = {.fd = sealane_pipe_fd(pipe), .events = POLLIN};
    CHECK(poll(&wait, 1, FOR_EVER) == 1);
    return sealane_pipe_dispatch(pipe);
}

static unsigned char pattern(size_t len, size_t i) { return (unsigned char)(len * 31 + i); }

static void *filled(size_t len) {
    unsigned char *bytes = malloc(len + 1);
    for (size_t i = 0; i < len; i++) bytes[i] = pattern(len, i);
    return bytes;
}

static int send_filled(sealane_pipe *pipe, size_t len, const int *fds, size_t fd_count) {
    void *bytes = filled(len);
    int status = sealane_pipe_send_any(pipe, bytes, len, fds, fd_count);
    free(bytes);
    return status;
}

static void check_filled(sealane_message *message, size_t len) {
    size_t found = 99;
    const unsigned char *bytes = sealane_message_bytes(message, &found);
    CHECK(bytes != NULL && found == len);
    for (size_t i = 0; i < len; i++) CHECK(bytes[i] == pattern(len, i));
    CHECK(sealane_message_bytes(message, NULL) == bytes);
}

static void check_next(sealane_pipe *pipe, size_t len) {
    sealane_message *message;
    STATUS(sealane_pipe_recv(pipe, FOR_EVER, &message), 0);
    check_filled(message, len);
    sealane_message_free(&message);
}

/* Two pipes whose handshake has not begun. */
static void fresh(const struct sealane_options *options, sealane_pipe **a, sealane_pipe **b) {
    sealane_pipe **pipes[2] = {a, b};
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
    for (int i = 0; i < 2; i++) {
        sealane_handshake *handshake;
        STATUS(sealane_handshake_start(options ? &options[i] : NULL, ends[i], &handshake), 0);
        close(ends[i]);
        STATUS(sealane_pipe_new(&handshake, pipes[i]), 0);
        CHECK(handshake == NULL);
    }
}

/* The event loop of both ends in one thread. */
static void connect_both(sealane_pipe *a, sealane_pipe *b) {
    while (sealane_pipe_channel(a) == NULL || sealane_pipe_channel(b) == NULL) {
        struct pollfd wait[2] = {{sealane_pipe_fd(a), POLLIN, 0}, {sealane_pipe_fd(b), POLLIN, 0}};
        CHECK(poll(wait, 2, FOR_EVER) > 0);
        if (wait[0].revents) CHECK(sealane_pipe_dispatch(a) >= 0);
        if (wait[1].revents) CHECK(sealane_pipe_dispatch(b) >= 0);
    }
}

static void free_both(sealane_pipe **a, sealane_pipe **b) {
    sealane_pipe_free(a);
    sealane_pipe_free(b);
    CHECK(*a == NULL && *b == NULL);
    sealane_pipe_free(a);
    sealane_pipe_free(NULL);
}

static void messages_of_any_size_come_in_order_and_whole(void) {
    sealane_pipe *a, *b;
    fresh(NULL, &a, &b);
    int null = open("/dev/null", O_RDONLY);
    const struct { size_t len, fds; int payload; } cases[] = {
        {0, 0, 0},     {64, 0, 0},        {4095, 0, 0},  {4096, 0, 1},  {100000, 0, 1},
        {0, 1, 0},     {16384, 2, 0},     {16385, 2, 1}, {200000, 3, 1},
    };
    const size_t count = sizeof cases / sizeof *cases;
    for (size_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < count; i++) {
            const int fds[3] = {null, null, null};
            STATUS(send_filled(a, cases[i].len, fds, cases[i].fds), 0);
        }
        if (round == 0) connect_both(a, b);
        for (size_t i = 0; i < count; i++) {
            sealane_message *message;
            STATUS(sealane_pipe_recv(b, 0, &message), 0);
            CHECK(sealane_message_has_payload(message) == cases[i].payload);
            check_filled(message, cases[i].len);
            STATUS(sealane_message_release(message), 0);
            check_filled(message, cases[i].len);
            int taken[3];
            STATUS(sealane_message_take_fds(message, taken, 3), (int)cases[i].fds);
            for (size_t fd = 0; fd < cases[i].fds; fd++) {
                CHECK(fcntl(taken[fd], F_GETFD) == FD_CLOEXEC);
                close(taken[fd]);
            }
            sealane_message_free(&message);
        }
        FAILS(sealane_pipe_recv(b, 0, &(sealane_message *){NULL}), EAGAIN, "no message");
    }
    /* A message outlives its pipe. */
    sealane_message *message;
    STATUS(send_filled(a, 5000, NULL, 0), 0);
    STATUS(sealane_pipe_recv(b, 0, &message), 0);
    close(null);
    free_both(&a, &b);
    check_filled(message, 5000);
    sealane_message_free(&message);
    CHECK(sealane_message_bytes(NULL, NULL) == NULL);
}

static void queue_is_bounded_and_goes_first(void) {
    sealane_pipe *a, *b;
    fresh(NULL, &a, &b);
    for (size_t i = 0; i < 64; i++) STATUS(send_filled(a, i, NULL, 0), 0);
    FAILS(send_filled(a, 1, NULL, 0), EAGAIN, "queue");
    FAILS(sealane_pipe_request_any(a, "x", 1, NULL, 0, NULL), EAGAIN, "not connected");
    CHECK(sealane_pipe_channel(a) == NULL);
    connect_both(a, b);
    while ((sealane_pipe_dispatch(a) & SEALANE_PIPE_CAN_SEND) == 0) check_next(b, 0);
    STATUS(send_filled(a, 64, NULL, 0), 0);
    for (size_t i = 0; i < 65; i++) check_next(b, i);
    free_both(&a, &b);

    /* Bytes, and descriptors, which the queue has copies of. */
    fresh(NULL, &a, &b);
    STATUS(send_filled(a, 1 << 20, NULL, 0), 0);
    FAILS(send_filled(a, 1, NULL, 0), EAGAIN, "queue");
    STATUS(send_filled(a, 0, NULL, 0), 0);
    free_both(&a, &b);
    fresh(NULL, &a, &b);
    int fds[254], ends[2];
    CHECK(pipe(ends) == 0);
    for (int i = 0; i < 254; i++) fds[i] = ends[1];
    FAILS(sealane_pipe_send_any(a, "x", 1, fds, 254), EMSGSIZE, "254");
    for (int i = 0; i < 4; i++) STATUS(sealane_pipe_send_any(a, "x", 1, fds, 60), 0);
    FAILS(sealane_pipe_send_any(a, "x", 1, fds, 14), EAGAIN, "queue");
    FAILS(sealane_pipe_send_any(a, "x", 1, (int[]){-1}, 1), EBADF, "open descriptor");
    FAILS(sealane_pipe_send_any(a, "x", 1, (int[]){9999}, 1), EBADF, "open descriptor");
    close(ends[1]);
    connect_both(a, b);
    sealane_message *message;
    STATUS(sealane_pipe_recv(b, 0, &message), 0);
    int taken;
    STATUS(sealane_message_take_fds(message, &taken, 1), 1);
    CHECK(write(taken, "y", 1) == 1);
    close(taken);
    sealane_message_free(&message);
    free_both(&a, &b);
    char text[2];
    CHECK(read(ends[0], text, 2) == 1 && read(ends[0], text, 2) == 0);
    close(ends[0]);
}

static void *answer_one(void *argument) {
    sealane_pipe *pipe = argument;
    sealane_message *message;
    uint64_t number;
    STATUS(sealane_pipe_recv(pipe, FOR_EVER, &message), 0);
    STATUS(sealane_message_expects_reply(message, &number), 1);
    STATUS(sealane_pipe_reply_any(pipe, number, "y", 1, NULL, 0), 0);
    sealane_message_free(&message);
    return NULL;
}

static void what_the_peer_refuses_is_said_and_the_rest_arrives(void) {
    struct sealane_options options[2] = {{.size = sizeof *options}, {.size = sizeof *options, .max_fds = 1}};
    sealane_pipe *a, *b;
    fresh(options, &a, &b);
    STATUS(send_filled(a, 1, NULL, 0), 0);
    STATUS(send_filled(a, 2, (int[]){0, 0}, 2), 0);
    STATUS(send_filled(a, 3, NULL, 0), 0);
    int refused = 0;
    while (sealane_pipe_channel(b) == NULL || refused == 0) {
        int status = sealane_pipe_dispatch(a);
        if (status < 0) {
            STATUS(status, -EMSGSIZE);
            CHECK(strstr(sealane_last_error(), "max_fds") != NULL);
            refused++;
        }
        CHECK(sealane_pipe_dispatch(b) >= 0);
    }
    CHECK(readable(a));
    STATUS(sealane_pipe_dispatch(a), SEALANE_PIPE_CAN_SEND);
    check_next(b, 1);
    check_next(b, 3);
    FAILS(send_filled(a, 3 << 20, NULL, 0), EMSGSIZE, "3145728");
    free_both(&a, &b);
}

/* A call goes on although a queued message was refused, which the next dispatch says. */
static void call_is_not_refused_for_another_message(void) {
    struct sealane_options options[2] = {{.size = sizeof *options}, {.size = sizeof *options, .max_fds = 1}};
    sealane_pipe *a, *b;
    fresh(options, &a, &b);
    STATUS(send_filled(a, 2, (int[]){0, 0}, 2), 0);
    sealane_message *message;
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, answer_one, b) == 0);
    STATUS(sealane_pipe_call_any(a, "x", 1, NULL, 0, FOR_EVER, &message), 0);
    sealane_message_free(&message);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(readable(a));
    FAILS(sealane_pipe_dispatch(a), EMSGSIZE, "max_fds");
    free_both(&a, &b);

    /* A loop that only receives learns it where there is no message. */
    fresh(options, &a, &b);
    STATUS(send_filled(a, 2, (int[]){0, 0}, 2), 0);
    int status;
    while ((status = sealane_pipe_recv(a, 0, &message)) == -EAGAIN) CHECK(sealane_pipe_dispatch(b) >= 0);
    FAILS(status, EMSGSIZE, "max_fds");
    while (readable(a)) STATUS(sealane_pipe_recv(a, 0, &message), -EAGAIN);
    free_both(&a, &b);
}

/* A peer that has sent, and ends before it has read what is queued here: what it sent arrives. */
static void what_came_before_the_end_arrives_though_messages_are_queued(void) {
    sealane_pipe *a, *b;
    fresh(NULL, &a, &b);
    STATUS(send_filled(b, 9000, NULL, 0), 0);
    STATUS(send_filled(b, 9, NULL, 0), 0);
    while (sealane_pipe_channel(b) == NULL) CHECK(sealane_pipe_dispatch(a) >= 0 && sealane_pipe_dispatch(b) >= 0);
    while ((sealane_pipe_dispatch(b) & SEALANE_PIPE_CAN_SEND) == 0) {}
    if (sealane_pipe_channel(a) == NULL) STATUS(send_filled(a, 1, NULL, 0), 0);
    sealane_pipe_free(&b);
    check_next(a, 9000);
    check_next(a, 9);
    sealane_message *message;
    FAILS(sealane_pipe_recv(a, FOR_EVER, &message), EPIPE, "");
    CHECK(sealane_pipe_dispatch(a) & SEALANE_PIPE_CAN_RECV);
    sealane_pipe_free(&a);
}

static void one_message_at_each_turn(void) {
    sealane_pipe *a, *b;
    fresh(NULL, &a, &b);
    connect_both(a, b);
    const size_t sizes[] = {10, 5000, 20, 30, 6000};
    while (readable(b)) STATUS(sealane_pipe_dispatch(b), SEALANE_PIPE_CAN_SEND);
    for (int i = 0; i < 5; i++) STATUS(send_filled(a, sizes[i], NULL, 0), 0);
    for (int i = 0; i < 5; i++) {
        CHECK(readable(b));
        STATUS(sealane_pipe_dispatch(b), SEALANE_PIPE_CAN_RECV | SEALANE_PIPE_CAN_SEND);
        sealane_message *message;
        STATUS(sealane_pipe_recv(b, 0, &message), 0);
        check_filled(message, sizes[i]);
        sealane_message_free(&message);
    }
    while (readable(b)) STATUS(sealane_pipe_dispatch(b), SEALANE_PIPE_CAN_SEND);
    /* After it was silent, both a packet and a payload make it readable. */
    for (size_t len = 10; len < 10000; len *= 10) {
        STATUS(send_filled(a, len, NULL, 0), 0);
        CHECK(wait_and_dispatch(b) & SEALANE_PIPE_CAN_RECV);
        check_next(b, len);
        while (readable(b)) STATUS(sealane_pipe_dispatch(b), SEALANE_PIPE_CAN_SEND);
    }
    free_both(&a, &b);
}

static void full_pipe_says_when_to_send_again(void) {
    const size_t sizes[] = {1000, 100000};
    for (int i = 0; i < 2; i++) {
        sealane_pipe *a, *b;
        fresh(NULL, &a, &b);
        connect_both(a, b);
        while (readable(a)) CHECK(sealane_pipe_dispatch(a) >= 0);
        int sent = 0, status;
        while ((status = send_filled(a, sizes[i], NULL, 0)) == 0) sent++;
        STATUS(status, -EAGAIN);
        CHECK(sent > 1 && !readable(a));
        STATUS(sealane_pipe_dispatch(a), 0);
        for (int received = 0; received < sent; received++) check_next(b, sizes[i]);
        CHECK(wait_and_dispatch(a) == SEALANE_PIPE_CAN_SEND);
        CHECK(!readable(a));
        STATUS(send_filled(a, sizes[i], NULL, 0), 0);
        check_next(b, sizes[i]);
        free_both(&a, &b);
    }
}

/* Room for a message that was refused is announced, whatever else was sent in between. */
static void what_else_is_sent_takes_no_announcement_along(void) {
    for (int how = 0; how < 3; how++) {
        sealane_pipe *a, *b;
        fresh(NULL, &a, &b);
        connect_both(a, b);
        while (readable(a)) CHECK(sealane_pipe_dispatch(a) >= 0);
        int sent = 0, status;
        const size_t large = 500000;
        while ((status = send_filled(a, large, NULL, 0)) == 0) sent++;
        STATUS(status, -EAGAIN);
        if (how == 0) {
            /* The same again, once there is room, without asking. */
            for (int i = 0; i < sent; i++) check_next(b, large);
            STATUS(send_filled(a, large, NULL, 0), 0);
            check_next(b, large);
        } else {
            /* A smaller one, which fits; or a loan, after which the pipe is asked. */
            sealane_loan *loan;
            if (how == 1) {
                STATUS(send_filled(a, 5000, NULL, 0), 0);
            } else {
                STATUS(sealane_loan_open(sealane_pipe_channel(a), 5000, 0, &loan), 0);
                for (size_t i = 0; i < 5000; i++) ((unsigned char *)sealane_loan_data(loan))[i] = pattern(5000, i);
                STATUS(sealane_loan_send(&loan, NULL, 0, NULL, 0, 0), 0);
            }
            int events = sealane_pipe_dispatch(a);
            CHECK(events >= 0);
            if (how == 1) {
                /* It may be tried, in vain; from then on it is waited for. */
                CHECK(events == SEALANE_PIPE_CAN_SEND);
                STATUS(send_filled(a, large, NULL, 0), -EAGAIN);
            } else {
                CHECK(events == 0);
            }
            for (int i = 0; i < sent; i++) check_next(b, large);
            check_next(b, 5000);
        }
        CHECK(wait_and_dispatch(a) == SEALANE_PIPE_CAN_SEND);
        CHECK(!readable(a));
        STATUS(send_filled(a, large, NULL, 0), 0);
        free_both(&a, &b);
    }
}

/* A queue that is sent while something is received is the next dispatch's to say. */
static void queue_that_is_sent_meanwhile_is_told(void) {
    sealane_pipe *a, *b;
    fresh(NULL, &a, &b);
    for (size_t i = 0; i < 64; i++) STATUS(send_filled(a, 0, NULL, 0), 0);
    STATUS(send_filled(a, 0, NULL, 0), -EAGAIN);
    sealane_message *message;
    while (sealane_pipe_channel(a) == NULL) {
        STATUS(sealane_pipe_recv(a, 0, &message), -EAGAIN);
        STATUS(sealane_pipe_recv(b, 0, &message), sealane_pipe_channel(b) && message ? 0 : -EAGAIN);
        sealane_message_free(&message);
    }
    do {
        while (sealane_pipe_recv(b, 0, &message) == 0) sealane_message_free(&message);
        STATUS(sealane_pipe_recv(a, 0, &message), -EAGAIN);
        CHECK(readable(a));
    } while ((sealane_pipe_dispatch(a) & SEALANE_PIPE_CAN_SEND) == 0 && poll(NULL, 0, 0) == 0);
    free_both(&a, &b);
}

/* Memory of a large copy is not what a small message that is kept holds. */
static void small_message_does_not_hold_the_memory_of_a_large_one(void) {
    sealane_pipe *a, *b;
    fresh(NULL, &a, &b);
    connect_both(a, b);
    sealane_loan *loan;
    sealane_message *large, *small[3];
    for (int i = 0; i < 3; i++) {
        STATUS(send_filled(a, 1 << 20, NULL, 0), 0);
        STATUS(sealane_pipe_recv(b, FOR_EVER, &large), 0);
        check_filled(large, 1 << 20);
        sealane_message_free(&large);
        STATUS(sealane_loan_open(sealane_pipe_channel(a), 1, FOR_EVER, &loan), 0);
        STATUS(sealane_loan_send(&loan, NULL, 0, NULL, 0, 0), 0);
        STATUS(sealane_pipe_recv(b, FOR_EVER, &small[i]), 0);
        void *bytes = (void *)(uintptr_t)sealane_message_bytes(small[i], NULL);
        CHECK(malloc_usable_size(bytes) < 4096);
    }
    for (int i = 0; i < 3; i++) sealane_message_free(&small[i]);
    free_both(&a, &b);
}

/* Answers requests with what they brought, after three messages; until the pipe ends. */
static void *echo(void *argument) {
    sealane_pipe *pipe = argument;
    for (;;) {
        sealane_message *message;
        int status = sealane_pipe_recv(pipe, FOR_EVER, &message);
        if (status == -EPIPE) break;
        STATUS(status, 0);
        uint64_t number;
        STATUS(sealane_message_expects_reply(message, &number), 1);
        for (size_t i = 1; i <= 3; i++) STATUS(send_filled(pipe, i * 2000, NULL, 0), 0);
        size_t len;
        const void *bytes = sealane_message_bytes(message, &len);
        STATUS(sealane_pipe_reply_any(pipe, number, bytes, len, NULL, 0), 0);
        FAILS(sealane_pipe_reply_any(pipe, number, bytes, len, NULL, 0), ENOENT, "request");
        sealane_message_free(&message);
    }
    sealane_pipe_free(&pipe);
    return NULL;
}

static void receiving_goes_through_the_handshake_and_sends_the_queue_without_dispatch(void) {
    sealane_pipe *a, *b;
    fresh(NULL, &a, &b);
    const size_t sizes[] = {10, 100000, 11};
    for (int i = 0; i < 3; i++) STATUS(send_filled(a, sizes[i], NULL, 0), 0);
    sealane_message *message;
    for (int received = 0; received < 3;) {
        struct pollfd wait[2] = {{.fd = sealane_pipe_fd(a), .events = POLLIN}, {.fd = sealane_pipe_fd(b), .events = POLLIN}};
        CHECK(poll(wait, 2, FOR_EVER) > 0);
        if (wait[0].revents) STATUS(sealane_pipe_recv(a, 0, &message), -EAGAIN);
        if (!wait[1].revents) continue;
        int status = sealane_pipe_recv(b, 0, &message);
        if (status == -EAGAIN) continue;
        STATUS(status, 0);
        check_filled(message, sizes[received++]);
        sealane_message_free(&message);
    }
    while (readable(b)) STATUS(sealane_pipe_recv(b, 0, &message), -EAGAIN);
    sealane_pipe_free(&a);
    CHECK(readable(b));
    STATUS(sealane_pipe_recv(b, 0, &message), -EPIPE);
    sealane_pipe_free(&b);
}

static void call_keeps_what_comes_in_between_and_the_descriptor_says_so(void) {
    sealane_pipe *a, *b;
    fresh(NULL, &a, &b);
    STATUS(sealane_pipe_channel(a) == NULL, 1);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, echo, b) == 0);
    /* The first call waits for the handshake. */
    const size_t sizes[] = {7, 70000};
    for (int i = 0; i < 2; i++) {
        void *bytes = filled(sizes[i]);
        sealane_message *reply;
        STATUS(sealane_pipe_call_any(a, bytes, sizes[i], NULL, 0, FOR_EVER, &reply), 0);
        free(bytes);
        check_filled(reply, sizes[i]);
        sealane_message_free(&reply);
        for (size_t k = 1; k <= 3; k++) {
            CHECK(readable(a));
            CHECK(sealane_pipe_dispatch(a) & SEALANE_PIPE_CAN_RECV);
            sealane_message *message;
            STATUS(sealane_pipe_recv(a, 0, &message), 0);
            check_filled(message, k * 2000);
            sealane_message_free(&message);
        }
    }
    uint64_t number, answered;
    STATUS(sealane_pipe_request_any(a, "abc", 3, NULL, 0, &number), 0);
    for (size_t k = 1; k <= 3; k++) check_next(a, k * 2000);
    sealane_message *message;
    STATUS(sealane_pipe_recv(a, FOR_EVER, &message), 0);
    STATUS(sealane_message_in_reply_to(message, &answered), 1);
    CHECK(answered == number);
    sealane_message_free(&message);
    FAILS(sealane_pipe_call_any(a, "x", 1, NULL, 0, 0, &message), ETIMEDOUT, "deadline");
    /* A loan as a request. */
    sealane_loan *loan;
    STATUS(sealane_loan_open(sealane_pipe_channel(a), 300000, FOR_EVER, &loan), 0);
    for (size_t i = 0; i < 300000; i++) ((unsigned char *)sealane_loan_data(loan))[i] = pattern(300000, i);
    STATUS(sealane_loan_request(&loan, NULL, 0, NULL, 0, FOR_EVER, &number), 0);
    STATUS(sealane_pipe_wait_reply(a, number, FOR_EVER, &message), 0);
    check_filled(message, 300000);
    sealane_message_free(&message);
    FAILS(sealane_pipe_wait_reply(a, number, 0, &message), ENOENT, "request");
    for (size_t k = 1; k <= 3; k++) check_next(a, k * 2000);
    sealane_pipe_free(&a);
    pthread_join(thread, NULL);
}

/* A message that is lost for want of descriptors is told, wherever the pipe met it. */
static void lost_message_is_told(void) {
    if (getenv("WITHOUT_LIMITS") != NULL) {
        fprintf(stderr, "SKIPPED: a message that is lost: %s\n", getenv("WITHOUT_LIMITS"));
        return;
    }
    for (int with_dispatch = 0; with_dispatch < 2; with_dispatch++) {
        sealane_pipe *a, *b;
        fresh(NULL, &a, &b);
        connect_both(a, b);
        int fds[20] = {0};
        STATUS(send_filled(a, 1, NULL, 0), 0);
        STATUS(send_filled(a, 2, fds, 20), 0);
        STATUS(send_filled(a, 3, NULL, 0), 0);
        struct rlimit before, few;
        CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
        few = before;
        few.rlim_cur = 30;
        CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
        const int expected[] = {0, -EMFILE, 0};
        for (int i = 0; i < 3; i++) {
            sealane_message *message;
            CHECK(readable(b));
            if (with_dispatch) CHECK(sealane_pipe_dispatch(b) & SEALANE_PIPE_CAN_RECV);
            STATUS(sealane_pipe_recv(b, 0, &message), expected[i]);
            if (message != NULL) check_filled(message, (size_t)i + 1);
            sealane_message_free(&message);
        }
        CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
        free_both(&a, &b);
    }
}

static int send_descriptors_to(int socket) {
    char control[CMSG_SPACE(10 * sizeof(int))] = {0}, byte = 0;
    struct iovec bytes = {&byte, 1};
    struct msghdr message = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(10 * sizeof(int));
    return sendmsg(socket, &message, MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* A queue that waited for descriptors in flight is sent afterwards, and then the descriptor is quiet. In a process of its own, which
 * is an ordinary user's. */
static void shortage_of_descriptors_in_flight_leaves_nothing_behind(void) {
    pid_t child = getenv("WITHOUT_LIMITS") == NULL ? fork() : -1;
    if (child != 0) {
        int status = 0;
        if (child > 0) CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
        if (child > 0 && WEXITSTATUS(status) == 0) return;
        CHECK(child < 0 || WEXITSTATUS(status) == 77);
        fprintf(stderr, "SKIPPED: the kernel does not limit the descriptors in flight\n");
        return;
    }
    if (getuid() == 0) CHECK(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
    struct rlimit few = {100, 100};
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    struct sealane_options options[2] = {{.size = sizeof *options, .ring_capacity = 65536}, {.size = sizeof *options}};
    sealane_pipe *a, *b;
    fresh(options, &a, &b);
    /* The ring holds some of these, so that the descriptor waits behind them. */
    const int payloads = 5;
    for (int i = 0; i < payloads; i++) STATUS(send_filled(a, 16000, NULL, 0), 0);
    STATUS(sealane_pipe_send_any(a, "with a descriptor", 17, (int[]){0}, 1), 0);
    connect_both(a, b);
    int held[2], status = 0;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, held) == 0);
    for (int i = 0; i < 100 && status == 0; i++) status = send_descriptors_to(held[0]);
    if (status != -ETOOMANYREFS) _exit(77);
    sealane_message *message;
    for (int received = 0; received < payloads;) {
        CHECK(sealane_pipe_dispatch(a) == 0);
        if ((status = sealane_pipe_recv(b, 0, &message)) == -EAGAIN) continue;
        STATUS(status, 0);
        check_filled(message, 16000);
        sealane_message_free(&message);
        received++;
    }
    for (int i = 0; i < 3; i++) STATUS(wait_and_dispatch(a), 0);
    STATUS(sealane_pipe_recv(b, 0, &message), -EAGAIN);
    close(held[0]);
    close(held[1]);
    while (wait_and_dispatch(a) != SEALANE_PIPE_CAN_SEND) {}
    STATUS(sealane_pipe_recv(b, FOR_EVER, &message), 0);
    CHECK(sealane_message_fd_count(message) == 1);
    sealane_message_free(&message);
    for (int turns = 0; readable(a); turns++) {
        CHECK(turns < 100);
        STATUS(sealane_pipe_dispatch(a), SEALANE_PIPE_CAN_SEND);
    }
    _exit(0);
}

static void failures_are_events(void) {
    /* The peer of the handshake goes away. */
    sealane_pipe *a, *b;
    fresh(NULL, &a, &b);
    STATUS(send_filled(a, 1, NULL, 0), 0);
    sealane_pipe_free(&b);
    int status;
    while ((status = wait_and_dispatch(a)) >= 0) {}
    STATUS(status, -ECONNRESET);
    CHECK(readable(a));
    FAILS(sealane_pipe_dispatch(a), ECONNRESET, "");
    FAILS(send_filled(a, 1, NULL, 0), ECONNRESET, "");
    sealane_message *message;
    FAILS(sealane_pipe_recv(a, FOR_EVER, &message), ECONNRESET, "");
    FAILS(sealane_pipe_call_any(a, "x", 1, NULL, 0, FOR_EVER, &message), ECONNRESET, "");
    sealane_pipe_free(&a);

    /* It is silent: the descriptor counts the time. */
    struct sealane_options options[2] = {{.size = sizeof *options, .handshake_timeout_ms = 300}, {.size = sizeof *options}};
    fresh(options, &a, &b);
    while ((status = wait_and_dispatch(a)) >= 0) {}
    STATUS(status, -ECONNABORTED);
    FAILS(sealane_pipe_recv(a, FOR_EVER, &message), ECONNABORTED, "handshake_timeout_ms");
    free_both(&a, &b);
    fresh(options, &a, &b);
    FAILS(sealane_pipe_call_any(b, "x", 1, NULL, 0, 20, &message), ETIMEDOUT, "");
    FAILS(sealane_pipe_recv(b, 20, &message), ETIMEDOUT, "");
    free_both(&a, &b);

    /* The peer of a channel goes away: what it sent comes first. */
    fresh(NULL, &a, &b);
    connect_both(a, b);
    while (readable(a)) CHECK(sealane_pipe_dispatch(a) >= 0);
    STATUS(send_filled(b, 9000, NULL, 0), 0);
    sealane_pipe_free(&b);
    CHECK(wait_and_dispatch(a) & SEALANE_PIPE_CAN_RECV);
    check_next(a, 9000);
    CHECK(wait_and_dispatch(a) & SEALANE_PIPE_CAN_RECV);
    FAILS(sealane_pipe_recv(a, 0, &message), EPIPE, "");
    CHECK(readable(a));
    FAILS(send_filled(a, 1, NULL, 0), EPIPE, "");
    FAILS(sealane_pipe_call_any(a, "x", 1, NULL, 0, FOR_EVER, &message), EPIPE, "");
    sealane_pipe_free(&a);

    FAILS(sealane_pipe_fd(NULL), EFAULT, "handle");
    FAILS(sealane_pipe_dispatch(NULL), EFAULT, "a pipe");
    FAILS(sealane_pipe_send_any(NULL, "x", 1, NULL, 0), EFAULT, "a pipe");
    CHECK(sealane_pipe_channel(NULL) == NULL);
    FAILS(sealane_pipe_new(NULL, &a), EFAULT, "address");
    FAILS(sealane_pipe_from_channel(&(sealane_channel *){NULL}, &a), EFAULT, "handle");
}

static void pipe_of_a_channel_leaves_it_if_it_fails(void) {
    sealane_channel *a, *b;
    STATUS(sealane_pair(NULL, &a, &b), 0);
    sealane_loan *loan;
    STATUS(sealane_loan_open(a, 10, 0, &loan), 0);
    sealane_pipe *pipe;
    FAILS(sealane_pipe_from_channel(&a, &pipe), EBUSY, "loan");
    CHECK(a != NULL && pipe == NULL);
    STATUS(sealane_loan_send(&loan, "x", 1, NULL, 0, 0), 0);
    STATUS(sealane_pipe_from_channel(&a, &pipe), 0);
    CHECK(a == NULL);
    /* It was never armed: something may have come before. */
    STATUS(sealane_send(b, "early", 5, NULL, 0, 0), 0);
    CHECK(wait_and_dispatch(pipe) == (SEALANE_PIPE_CAN_RECV | SEALANE_PIPE_CAN_SEND));
    /* Loans go through its channel. */
    STATUS(sealane_loan_open(sealane_pipe_channel(pipe), 100, 0, &loan), 0);
    FAILS(sealane_pipe_send_any(pipe, "x", 1, NULL, 0), EBUSY, "loan");
    sealane_loan_free(&loan);
    sealane_pipe_free(&pipe);
    sealane_channel_free(&b);
}

/* Create, start, send: the worker is a fresh process, which answers the queued messages and then the call. */
static void worker(const char *name) {
    sealane_channel *channel;
    sealane_pipe *pipe;
    STATUS(sealane_inherited_as(NULL, name, &channel), 0);
    STATUS(sealane_pipe_from_channel(&channel, &pipe), 0);
    for (size_t i = 0; i < 3; i++) check_next(pipe, i * 10000);
    sealane_message *message;
    STATUS(sealane_pipe_recv(pipe, FOR_EVER, &message), 0);
    uint64_t number;
    STATUS(sealane_message_expects_reply(message, &number), 1);
    sealane_message_free(&message);
    STATUS(sealane_pipe_reply_any(pipe, number, "done", 4, NULL, 0), 0);
    sealane_pipe_free(&pipe);
}

static void create_start_send(const char *program) {
    sealane_handshake *handshake;
    sealane_pipe *pipe;
    char name[SEALANE_NAME_SIZE];
    STATUS(sealane_prepare(NULL, &handshake), 0);
    FAILS(sealane_pipe_new(&handshake, &pipe), EBUSY, "sealane_handshake_child_started");
    CHECK(handshake != NULL && pipe == NULL);
    STATUS(sealane_handshake_child_name(handshake, name, sizeof name), 0);
    int fd = sealane_handshake_child_fd(handshake);
    pid_t child = fork();
    if (child == 0) {
        fcntl(fd, F_SETFD, 0);
        execl(program, program, name, NULL);
        _exit(127);
    }
    STATUS(sealane_handshake_child_started(handshake), 0);
    STATUS(sealane_pipe_new(&handshake, &pipe), 0);
    for (size_t i = 0; i < 3; i++) STATUS(send_filled(pipe, i * 10000, NULL, 0), 0);
    sealane_message *reply;
    STATUS(sealane_pipe_call_any(pipe, "?", 1, NULL, 0, FOR_EVER, &reply), 0);
    size_t len;
    const char *text = sealane_message_bytes(reply, &len);
    CHECK(len == 4 && memcmp(text, "done", 4) == 0);
    sealane_message_free(&reply);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(wait_and_dispatch(pipe) & SEALANE_PIPE_CAN_RECV);
    FAILS(sealane_pipe_recv(pipe, 0, &reply), EPIPE, "");
    sealane_pipe_free(&pipe);
}

static int open_descriptors(void) {
    int count = 0;
    DIR *directory = opendir("/proc/self/fd");
    while (readdir(directory) != NULL) count++;
    closedir(directory);
    return count;
}

int main(int argc, char **argv) {
    if (argc == 2) {
        worker(argv[1]);
        return 0;
    }
    int before = open_descriptors();
    messages_of_any_size_come_in_order_and_whole();
    queue_is_bounded_and_goes_first();
    what_the_peer_refuses_is_said_and_the_rest_arrives();
    call_is_not_refused_for_another_message();
    what_came_before_the_end_arrives_though_messages_are_queued();
    one_message_at_each_turn();
    full_pipe_says_when_to_send_again();
    what_else_is_sent_takes_no_announcement_along();
    queue_that_is_sent_meanwhile_is_told();
    small_message_does_not_hold_the_memory_of_a_large_one();
    receiving_goes_through_the_handshake_and_sends_the_queue_without_dispatch();
    call_keeps_what_comes_in_between_and_the_descriptor_says_so();
    lost_message_is_told();
    shortage_of_descriptors_in_flight_leaves_nothing_behind();
    failures_are_events();
    pipe_of_a_channel_leaves_it_if_it_fails();
    create_start_send(argv[0]);
    CHECK(open_descriptors() == before);
    puts("a pipe does what the header says");
    return 0;
}
