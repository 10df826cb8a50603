/* Every function of sealane.h in one process: what it does, and what it refuses. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static int readable(int fd) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    return poll(&wait, 1, 0) == 1;
}

static void pair(sealane_channel **a, sealane_channel **b) { STATUS(sealane_pair(NULL, a, b), 0); }

static void check_control(sealane_message *message, const char *text) {
    size_t len = 99;
    const void *control = sealane_message_control(message, &len);
    CHECK(len == strlen(text) && memcmp(control, text, len) == 0);
    CHECK((uintptr_t)control % 16 == 0);
}

static void versions_and_sentences(void) {
    CHECK(strcmp(sealane_version(), "0.1.0") == 0);
    sealane_channel *channel = NULL;
    FAILS(sealane_connect(NULL, "/nowhere/at/all", &channel), ENOENT, "/nowhere/at/all");
    CHECK(channel == NULL);
    FAILS(sealane_connect(NULL, NULL, &channel), EFAULT, "a string");
    FAILS(sealane_connect(NULL, "/nowhere", NULL), EFAULT, "address");
    /* A path that is longer than the sentence's room. */
    char path[3000];
    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = 0;
    CHECK(sealane_connect(NULL, path, &channel) < 0);
    CHECK(strlen(sealane_last_error()) < 1024 && strlen(sealane_last_error()) > 0);
}

static void options_grow(void) {
    sealane_channel *a, *b;
    sealane_limits sent, received;
    struct sealane_options options = {.size = sizeof options, .ring_capacity = 1 << 20, .max_fds = SEALANE_NONE, .max_control = 100};
    STATUS(sealane_pair(&options, &a, &b), 0);
    STATUS(sealane_channel_limits(a, &sent, &received), 0);
    CHECK(sent.max_payload == (1 << 20) / 2 - 1088 && sent.max_control == 100 && sent.max_fds == 0);
    CHECK(received.max_requests == 1024);
    STATUS(sealane_channel_limits(a, NULL, NULL), 0);
    int fd = 0;
    FAILS(sealane_send(a, "x", 1, &fd, 1, 0), EMSGSIZE, "max_fds");
    char many[101] = {0};
    FAILS(sealane_send(a, many, sizeof many, NULL, 0, 0), EMSGSIZE, "max_control");
    sealane_channel_free(&a);
    sealane_channel_free(&b);

    /* An older program: only the first two fields. What lies behind them is not read. */
    options = (struct sealane_options){.size = 16, .ring_capacity = 1 << 16, .max_fds = SEALANE_NONE};
    uint64_t *old = malloc(16);
    memcpy(old, &options, 16);
    STATUS(sealane_pair((const struct sealane_options *)old, &a, &b), 0);
    free(old);
    STATUS(sealane_channel_limits(a, &sent, NULL), 0);
    CHECK(sent.max_payload == (1 << 16) / 2 - 1088 && sent.max_fds == 64);
    sealane_channel_free(&a);
    sealane_channel_free(&b);

    /* A newer program: what this library does not know has to be 0. */
    struct {
        struct sealane_options known;
        uint64_t unknown;
    } newer = {.known = {.size = sizeof newer}};
    STATUS(sealane_pair(&newer.known, &a, &b), 0);
    sealane_channel_free(&a);
    sealane_channel_free(&b);
    newer.unknown = 1;
    FAILS(sealane_pair(&newer.known, &a, &b), E2BIG, "newer");
    CHECK(a == NULL && b == NULL);
    uint64_t huge = UINT64_MAX;
    FAILS(sealane_pair((const struct sealane_options *)&huge, &a, &b), E2BIG, "newer");
    huge = 7;
    FAILS(sealane_pair((const struct sealane_options *)&huge, &a, &b), EINVAL, "size");

    options = (struct sealane_options){.size = sizeof options, .wait = 9};
    FAILS(sealane_pair(&options, &a, &b), EINVAL, "wait");
    options = (struct sealane_options){.size = sizeof options, .wait = SEALANE_WAIT_BLOCK, .max_spin_us = 1};
    FAILS(sealane_pair(&options, &a, &b), EINVAL, "max_spin_us");
    options = (struct sealane_options){.size = sizeof options, .huge_pages = 2};
    FAILS(sealane_pair(&options, &a, &b), EINVAL, "huge_pages");
    options = (struct sealane_options){.size = sizeof options, .reserved = 2};
    FAILS(sealane_pair(&options, &a, &b), EINVAL, "reserved");
    options = (struct sealane_options){.size = sizeof options, .ring_capacity = UINT64_MAX};
    FAILS(sealane_pair(&options, &a, &b), EINVAL, "too large");
    options = (struct sealane_options){.size = sizeof options, .handshake_timeout_ms = -1};
    FAILS(sealane_pair(&options, &a, &b), EINVAL, "handshake_timeout_ms");
    options = (struct sealane_options){.size = sizeof options, .ring_capacity = SEALANE_NONE};
    FAILS(sealane_pair(&options, &a, &b), EINVAL, "SEALANE_NO_RING expected");
    options = (struct sealane_options){.size = sizeof options, .max_control = 212929};
    FAILS(sealane_pair(&options, &a, &b), EINVAL, "max_control");
    options = (struct sealane_options){.size = sizeof options, .max_fds = 254};
    FAILS(sealane_pair(&options, &a, &b), EINVAL, "max_fds");
    options = (struct sealane_options){.size = sizeof options, .ring_capacity = UINT64_C(1) << 60, .max_peer_ring_capacity = UINT64_MAX};
    CHECK(sealane_pair(&options, &a, &b) < 0 && strstr(sealane_last_error(), "Builder") == NULL);
    options = (struct sealane_options){.size = sizeof options, .ring_capacity = SEALANE_NO_RING, .max_peer_ring_capacity = UINT32_MAX};
    STATUS(sealane_pair(&options, &a, &b), 0);
    STATUS(sealane_channel_limits(a, &sent, &received), 0);
    CHECK(sent.max_payload == 0 && received.max_payload == 0);
    sealane_channel_free(&a);
    sealane_channel_free(&b);
    FAILS(sealane_pair(NULL, &a, &a), EINVAL, "twice");
    options = (struct sealane_options){
        .size = sizeof options, .max_peer_ring_capacity = 8 << 20, .max_requests = 1, .handshake_timeout_ms = 1000,
        .wait = SEALANE_WAIT_ADAPTIVE, .max_spin_us = SEALANE_NONE, .prefault = SEALANE_NONE, .huge_pages = SEALANE_NONE, .peer_pidfd = 1};
    STATUS(sealane_pair(&options, &a, &b), 0);
    int pidfd = sealane_channel_pidfd(a);
    CHECK(pidfd >= 0 || pidfd == -ENOENT);
    sealane_channel_free(&a);
    sealane_channel_free(&b);
    CHECK(sealane_ring_for(4096, 1) >= 3 * (4096 + 1088));
}

static void messages(void) {
    sealane_channel *a, *b;
    sealane_message *message = NULL;
    pair(&a, &b);
    FAILS(sealane_recv(b, 0, &message), EAGAIN, "no message");
    CHECK(message == NULL && !readable(sealane_channel_recv_fd(b)));
    STATUS(sealane_channel_arm(b), 1);
    FAILS(sealane_recv(b, 1, &message), ETIMEDOUT, "deadline");
    FAILS(sealane_recv(b, -2, &message), EINVAL, "timeout");

    int pipes[2], taken[3] = {-1, -1, -1};
    CHECK(pipe(pipes) == 0);
    STATUS(sealane_send(a, "hello", 5, pipes, 2, -1), 0);
    CHECK(fcntl(pipes[0], F_GETFD) >= 0 && readable(sealane_channel_recv_fd(b)));
    STATUS(sealane_channel_arm(b), 0);
    STATUS(sealane_recv(b, -1, &message), 0);
    check_control(message, "hello");
    uint64_t number = 99;
    STATUS(sealane_message_number(message, &number), 0);
    CHECK(number == 0);
    STATUS(sealane_message_has_payload(message), 0);
    CHECK(sealane_message_payload_len(message) == 0);
    FAILS(sealane_message_copy(message, 0, &number, 1), ENODATA, "no payload");
    CHECK(sealane_message_fd_count(message) == 2);
    STATUS(sealane_message_take_fds(message, taken, 1), 1);
    CHECK(sealane_message_fd_count(message) == 1 && taken[1] == -1);
    CHECK(fcntl(taken[0], F_GETFD) == FD_CLOEXEC);
    STATUS(sealane_message_take_fds(message, taken + 1, 2), 1);
    CHECK(write(taken[1], "x", 1) == 1 && readable(taken[0]));
    close(taken[0]);
    close(taken[1]);
    sealane_message_free(&message);
    CHECK(message == NULL);
    sealane_message_free(&message);
    sealane_message_free(NULL);
    /* A socket that is closed with its message does not linger, whatever the peer has set. */
    struct linger linger = {.l_onoff = 1, .l_linger = 30000};
    socklen_t linger_len = sizeof linger;
    int sockets[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) == 0);
    CHECK(setsockopt(sockets[0], SOL_SOCKET, SO_LINGER, &linger, linger_len) == 0);
    STATUS(sealane_send(a, NULL, 0, sockets, 1, -1), 0);
    STATUS(sealane_recv(b, -1, &message), 0);
    sealane_message_free(&message);
    CHECK(getsockopt(sockets[0], SOL_SOCKET, SO_LINGER, &linger, &linger_len) == 0 && !linger.l_onoff);
    close(sockets[0]);
    close(sockets[1]);
    STATUS(sealane_send(a, NULL, 0, pipes, 1, 1000), 0);
    close(pipes[0]);
    close(pipes[1]);
    STATUS(sealane_recv(b, 1000, &message), 0);
    /* Its descriptor is closed with it. */
    sealane_message_free(&message);

    int closed = pipes[1], negative = -1;
    FAILS(sealane_send(a, "x", 1, &closed, 1, 0), EBADF, "failed");
    FAILS(sealane_send(a, "x", 1, &negative, 1, 0), EBADF, "open descriptor");
    FAILS(sealane_send(a, NULL, 1, NULL, 0, 0), EFAULT, "null");
    FAILS(sealane_send(a, "x", 1, NULL, 1, 0), EFAULT, "null");
    FAILS(sealane_send(NULL, "x", 1, NULL, 0, 0), EFAULT, "handle");

    /* A socket that is full says when it has room. */
    int status, count = 0;
    while ((status = sealane_send(a, "x", 1, NULL, 0, 0)) == 0) count++;
    STATUS(status, -EAGAIN);
    FAILS(sealane_send(a, "x", 1, NULL, 0, 1), ETIMEDOUT, "deadline");
    STATUS(sealane_send(a, "x", 1, NULL, 0, 0), -EAGAIN);
    CHECK(!readable(sealane_channel_send_fd(a)));
    for (int i = 0; i < count; i++) {
        STATUS(sealane_recv(b, 0, &message), 0);
        sealane_message_free(&message);
    }
    STATUS(sealane_recv(b, 0, &message), -EAGAIN);
    CHECK(readable(sealane_channel_send_fd(a)));

    sealane_peer peer;
    STATUS(sealane_channel_peer(a, &peer), 0);
    CHECK(peer.pid == (uint32_t)getpid() && peer.uid == getuid() && peer.gid == getgid() && peer.version == 1);
    FAILS(sealane_channel_pidfd(a), ENOENT, "pidfd");

    /* What was sent before the end is received, then comes the end. */
    STATUS(sealane_send(a, "last", 4, NULL, 0, 0), 0);
    sealane_channel_free(&a);
    CHECK(a == NULL);
    sealane_channel_free(&a);
    STATUS(sealane_recv(b, -1, &message), 0);
    sealane_channel_free(&b);
    check_control(message, "last");
    sealane_message_free(&message);

    pair(&a, &b);
    sealane_channel_free(&a);
    FAILS(sealane_recv(b, -1, &message), EPIPE, "gone");
    STATUS(sealane_channel_close(b), 0);
    FAILS(sealane_send(b, "x", 1, NULL, 0, -1), EPIPE, "gone");
    sealane_channel_free(&b);
}

struct sum {
    size_t bytes, blocks, stop_after;
    unsigned long sum;
};

static int add(void *context, const void *bytes, size_t len) {
    struct sum *sum = context;
    for (size_t i = 0; i < len; i++) sum->sum += ((const unsigned char *)bytes)[i];
    sum->bytes += len;
    return ++sum->blocks == sum->stop_after ? 7 : 0;
}

struct some {
    sealane_channel *channel;
    int count;
};

static void *receive_some(void *argument) {
    struct some *some = argument;
    sealane_message *message;
    for (int i = 0; i < some->count; i++) {
        STATUS(sealane_recv(some->channel, -1, &message), 0);
        sealane_message_free(&message);
    }
    return NULL;
}

static void loans(void) {
    sealane_channel *a, *b;
    sealane_loan *loan = NULL;
    sealane_message *message;
    pair(&a, &b);
    FAILS(sealane_loan_open(a, 1 << 30, -1, &loan), EMSGSIZE, "options.ring_capacity");
    CHECK(loan == NULL);
    STATUS(sealane_loan_open(a, 100000, -1, &loan), 0);
    CHECK(sealane_loan_len(loan) == 100000 && (uintptr_t)sealane_loan_data(loan) % 64 == 0);
    memset(sealane_loan_data(loan), 3, 100000);

    /* An open loan blocks the sending functions, and no others. */
    sealane_loan *second = NULL;
    sealane_message *reply;
    FAILS(sealane_send(a, "x", 1, NULL, 0, -1), EBUSY, "loan");
    FAILS(sealane_request(a, "x", 1, NULL, 0, -1, NULL), EBUSY, "loan");
    FAILS(sealane_reply(a, 0, "x", 1, NULL, 0, -1), EBUSY, "loan");
    FAILS(sealane_call(a, "x", 1, NULL, 0, -1, &reply), EBUSY, "loan");
    FAILS(sealane_loan_open(a, 1, -1, &second), EBUSY, "loan");
    STATUS(sealane_send(b, "to a", 4, NULL, 0, -1), 0);
    STATUS(sealane_recv(a, -1, &message), 0);
    sealane_message_free(&message);

    FAILS(sealane_loan_truncate(loan, 100001), EINVAL, "more");
    STATUS(sealane_loan_truncate(loan, 50000), 0);
    CHECK(sealane_loan_len(loan) == 50000);
    int bad = -1;
    FAILS(sealane_loan_send(&loan, "x", 1, &bad, 1, -1), EBADF, "open descriptor");
    CHECK(loan != NULL);
    int fd = 0;
    STATUS(sealane_loan_send(&loan, "stats", 5, &fd, 1, 0), 0);
    CHECK(loan == NULL);
    FAILS(sealane_loan_send(&loan, NULL, 0, NULL, 0, 0), EFAULT, "a null pointer found");
    FAILS(sealane_loan_send(NULL, NULL, 0, NULL, 0, 0), EFAULT, "address");
    sealane_loan_free(&loan);
    sealane_loan_free(NULL);
    CHECK(sealane_loan_data(NULL) == NULL && sealane_loan_len(NULL) == 0);

    STATUS(sealane_recv(b, -1, &message), 0);
    check_control(message, "stats");
    STATUS(sealane_message_has_payload(message), 1);
    CHECK(sealane_message_payload_len(message) == 50000 && sealane_message_fd_count(message) == 1);
    unsigned char copy[50000];
    memset(copy, 0, sizeof copy);
    STATUS(sealane_message_copy(message, 1, copy, 49999), 0);
    CHECK(copy[0] == 3 && copy[49998] == 3 && copy[49999] == 0);
    FAILS(sealane_message_copy(message, 1, copy, 50000), EINVAL, "50000");
    FAILS(sealane_message_copy(message, SIZE_MAX, copy, 2), EINVAL, "expected");
    FAILS(sealane_message_copy(message, 0, NULL, 1), EFAULT, "null");
    STATUS(sealane_message_copy(message, 50000, NULL, 0), 0);
    struct sum sum = {0, 0, 0, 0};
    STATUS(sealane_message_blocks(message, add, &sum), 0);
    CHECK(sum.bytes == 50000 && sum.sum == 150000 && sum.blocks == 7);
    sum = (struct sum){.stop_after = 2};
    STATUS(sealane_message_blocks(message, add, &sum), 7);
    CHECK(sum.blocks == 2);
    FAILS(sealane_message_blocks(message, NULL, NULL), EFAULT, "function");
    STATUS(sealane_message_release(message), 0);
    STATUS(sealane_message_has_payload(message), 0);
    check_control(message, "stats");
    sealane_message_free(&message);

    /* A ring without room: the loan that is tried says so, and the descriptor when that ends. */
    sealane_limits limits;
    STATUS(sealane_channel_limits(a, &limits, NULL), 0);
    int status, count = 0;
    while ((status = sealane_loan_open(a, limits.max_payload / 4, 0, &loan)) == 0) {
        STATUS(sealane_loan_send(&loan, NULL, 0, NULL, 0, -1), 0);
        count++;
    }
    FAILS(status, EAGAIN, "room");
    FAILS(sealane_loan_open(a, limits.max_payload, 1, &loan), ETIMEDOUT, "deadline");
    FAILS(sealane_loan_open(a, limits.max_payload, 0, &loan), EAGAIN, "room");
    CHECK(loan == NULL && !readable(sealane_channel_send_fd(a)));
    for (int i = 0; i < count; i++) {
        STATUS(sealane_recv(b, -1, &message), 0);
        sealane_message_free(&message);
    }
    STATUS(sealane_recv(b, 0, &message), -EAGAIN);
    CHECK(readable(sealane_channel_send_fd(a)));

    /* A discarded loan sends nothing. */
    STATUS(sealane_loan_open(a, 64, 0, &loan), 0);
    sealane_loan_free(&loan);
    STATUS(sealane_recv(b, 0, &message), -EAGAIN);

    /* A socket that is full leaves a loan open. */
    count = 0;
    while ((status = sealane_send(a, "x", 1, NULL, 0, 0)) == 0) count++;
    STATUS(status, -EAGAIN);
    STATUS(sealane_loan_open(a, 64, 0, &loan), 0);
    STATUS(sealane_loan_send(&loan, "fd", 2, &fd, 1, 0), -EAGAIN);
    CHECK(loan != NULL && sealane_loan_len(loan) == 64);
    STATUS(sealane_loan_send(&loan, "fd", 2, &fd, 1, 1), -ETIMEDOUT);
    CHECK(loan != NULL);
    pthread_t thread;
    struct some some = {b, count};
    CHECK(pthread_create(&thread, NULL, receive_some, &some) == 0);
    STATUS(sealane_loan_send(&loan, "fd", 2, &fd, 1, -1), 0);
    CHECK(pthread_join(thread, NULL) == 0 && loan == NULL);
    STATUS(sealane_recv(b, -1, &message), 0);
    CHECK(sealane_message_fd_count(message) == 1);
    sealane_message_free(&message);

    /* A loan that was sent or freed through another variable is refused, and nothing happens to the next one. */
    STATUS(sealane_loan_open(a, 64, 0, &loan), 0);
    sealane_loan *alias = loan, *again = loan;
    STATUS(sealane_loan_send(&loan, NULL, 0, NULL, 0, 0), 0);
    FAILS(sealane_loan_send(&alias, NULL, 0, NULL, 0, 0), EFAULT, "open loan");
    sealane_loan_free(&again);
    STATUS(sealane_recv(b, -1, &message), 0);
    sealane_message *other = message;
    sealane_message_free(&message);
    sealane_message_free(&other);
    STATUS(sealane_loan_open(a, 64, 0, &loan), 0);

    /* It ends with its channel, of which the peer learns at once. */
    sealane_channel_free(&a);
    STATUS(sealane_recv(b, -1, &message), -EPIPE);
    CHECK(sealane_loan_data(loan) == NULL && sealane_loan_len(loan) == 0);
    FAILS(sealane_loan_send(&loan, "late", 4, NULL, 0, -1), EPIPE, "freed");
    sealane_loan_free(&loan);
    CHECK(loan == NULL);
    sealane_channel_free(&b);
}

static void requests(void) {
    sealane_channel *a, *b;
    sealane_loan *loan;
    sealane_message *message;
    uint64_t number, asked, answered;
    pair(&a, &b);
    STATUS(sealane_request(a, "gain?", 5, NULL, 0, 0, &asked), 0);
    STATUS(sealane_recv(b, -1, &message), 0);
    STATUS(sealane_message_in_reply_to(message, NULL), 0);
    STATUS(sealane_message_expects_reply(message, &number), 1);
    sealane_message_free(&message);
    STATUS(sealane_reply(b, number, "2.0", 3, NULL, 0, 0), 0);
    FAILS(sealane_reply(b, number, "2.0", 3, NULL, 0, 0), ENOENT, "request");
    STATUS(sealane_recv(a, -1, &message), 0);
    STATUS(sealane_message_in_reply_to(message, &answered), 1);
    STATUS(sealane_message_expects_reply(message, NULL), 0);
    CHECK(answered == asked);
    sealane_message_free(&message);

    /* Payloads both ways. */
    STATUS(sealane_loan_open(a, 8, -1, &loan), 0);
    memcpy(sealane_loan_data(loan), "question", 8);
    STATUS(sealane_loan_request(&loan, NULL, 0, NULL, 0, -1, &asked), 0);
    STATUS(sealane_recv(b, -1, &message), 0);
    STATUS(sealane_message_expects_reply(message, &number), 1);
    sealane_message_free(&message);
    STATUS(sealane_loan_open(b, 6, -1, &loan), 0);
    memcpy(sealane_loan_data(loan), "answer", 6);
    FAILS(sealane_loan_reply(&loan, number + 100, NULL, 0, NULL, 0, -1), ENOENT, "request");
    CHECK(loan != NULL);
    STATUS(sealane_loan_reply(&loan, number, NULL, 0, NULL, 0, -1), 0);
    STATUS(sealane_recv(a, -1, &message), 0);
    char answer[6];
    STATUS(sealane_message_copy(message, 0, answer, 6), 0);
    CHECK(memcmp(answer, "answer", 6) == 0);
    sealane_message_free(&message);

    FAILS(sealane_call(a, "x", 1, NULL, 0, 0, &message), ETIMEDOUT, "deadline");
    FAILS(sealane_call(a, "x", 1, NULL, 0, 1, &message), ETIMEDOUT, "deadline");
    STATUS(sealane_request(a, "never mind", 10, NULL, 0, 0, &asked), 0);
    STATUS(sealane_cancel(a, asked), 0);
    FAILS(sealane_cancel(a, asked), ENOENT, "request");

    /* A number that is known before; a reply that is waited for on its own. */
    uint64_t next;
    STATUS(sealane_channel_next_number(a, &next), 0);
    STATUS(sealane_loan_open(a, 8, -1, &loan), 0);
    STATUS(sealane_channel_next_number(a, &next), -EBUSY);
    STATUS(sealane_loan_request(&loan, NULL, 0, NULL, 0, -1, &asked), 0);
    CHECK(asked == next);
    STATUS(sealane_send(b, "first", 5, NULL, 0, 0), 0);
    for (int i = 0; i < 2; i++) FAILS(sealane_wait_reply(a, asked, 0, &message), EAGAIN, "reply");
    /* What came before, the calls that were given up, is still there. */
    do {
        STATUS(sealane_recv(b, -1, &message), 0);
        STATUS(sealane_message_expects_reply(message, &number), 1);
        sealane_message_free(&message);
    } while (number != asked);
    STATUS(sealane_reply(b, number, "reply", 5, NULL, 0, 0), 0);
    STATUS(sealane_wait_reply(a, asked, 0, &message), 0);
    check_control(message, "reply");
    sealane_message_free(&message);
    FAILS(sealane_wait_reply(a, asked, -1, &message), ENOENT, "request");
    STATUS(sealane_channel_arm(a), 0);
    STATUS(sealane_recv(a, 0, &message), 0);
    check_control(message, "first");
    sealane_message_free(&message);

    /* A call that fails leaves no request behind, whatever the reason. */
    for (int i = 0; i < 64; i++) STATUS(sealane_send(b, "x", 1, NULL, 0, 0), 0);
    STATUS(sealane_channel_next_number(a, &next), 0);
    FAILS(sealane_call(a, "x", 1, NULL, 0, -1, &message), ENOBUFS, "receive");
    STATUS(sealane_cancel(a, next), -ENOENT);

    sealane_channel_free(&b);
    FAILS(sealane_call(a, "x", 1, NULL, 0, -1, &message), EPIPE, "gone");
    sealane_channel_free(&a);
}

static void *answer_calls(void *channel) {
    sealane_message *message;
    while (sealane_recv(channel, -1, &message) == 0) {
        uint64_t number;
        size_t len;
        const void *question = sealane_message_control(message, &len);
        if (sealane_message_expects_reply(message, &number) == 1)
            STATUS(sealane_reply(channel, number, question, len, NULL, 0, -1), 0);
        sealane_message_free(&message);
    }
    return NULL;
}

static void *wait_for_a_message(void *channel) {
    sealane_message *message;
    int status;
    /* The other thread may just be trying. */
    while ((status = sealane_recv(channel, -1, &message)) == -EBUSY) sched_yield();
    STATUS(status, -EPIPE);
    return (void *)(uintptr_t)(strlen(sealane_last_error()) > 0);
}

static void threads(void) {
    sealane_channel *a, *b;
    sealane_message *message;
    pthread_t thread;
    pair(&a, &b);
    CHECK(pthread_create(&thread, NULL, answer_calls, b) == 0);
    for (int i = 0; i < 1000; i++) {
        STATUS(sealane_call(a, &i, sizeof i, NULL, 0, -1, &message), 0);
        CHECK(memcmp(sealane_message_control(message, NULL), &i, sizeof i) == 0);
        sealane_message_free(&message);
    }
    sealane_channel_free(&a);
    CHECK(pthread_join(thread, NULL) == 0);
    sealane_channel_free(&b);

    /* A second receiver is refused while the first waits; sending works; closing ends the wait. */
    pair(&a, &b);
    CHECK(pthread_create(&thread, NULL, wait_for_a_message, a) == 0);
    int status;
    while ((status = sealane_recv(a, 0, &message)) == -EAGAIN) sched_yield();
    FAILS(status, EBUSY, "receiving");
    uint64_t number;
    STATUS(sealane_request(a, "x", 1, NULL, 0, 0, &number), 0);
    STATUS(sealane_cancel(a, number), 0);
    STATUS(sealane_channel_close(a), 0);
    void *result;
    CHECK(pthread_join(thread, &result) == 0 && result != NULL);
    sealane_channel_free(&a);
    sealane_channel_free(&b);
}

static void listeners(const char *directory) {
    char path[108];
    snprintf(path, sizeof path, "%s/socket", directory);
    sealane_listener *listener;
    sealane_handshake *server, *client;
    sealane_channel *a = NULL, *b = NULL;
    sealane_message *message;
    STATUS(sealane_listen(NULL, path, &listener), 0);
    sealane_listener *second = NULL;
    FAILS(sealane_listen(NULL, path, &second), EADDRINUSE, path);
    FAILS(sealane_accept(listener, 0, &a), EAGAIN, "no client");
    FAILS(sealane_accept(listener, 1, &a), ETIMEDOUT, "deadline");
    FAILS(sealane_accept_start(listener, &server), EAGAIN, "no client");
    CHECK(!readable(sealane_listener_fd(listener)));

    STATUS(sealane_connect_start(NULL, path, &client), 0);
    CHECK(readable(sealane_listener_fd(listener)));
    int remaining = sealane_handshake_remaining_ms(client);
    CHECK(remaining > 0 && remaining <= 5000 && sealane_handshake_fd(client) >= 0);
    STATUS(sealane_accept_start(listener, &server), 0);
    sealane_peer peer;
    FAILS(sealane_handshake_peer(server, &peer), EAGAIN, "who");
    STATUS(sealane_handshake_advance(client), 0);
    STATUS(sealane_handshake_advance(server), 0);
    STATUS(sealane_handshake_peer(server, &peer), 0);
    CHECK(peer.uid == getuid() && peer.pid == (uint32_t)getpid());
    STATUS(sealane_handshake_needs_advance(server), 1);
    int done = 0;
    while (done != 3) {
        if (!(done & 1)) done |= sealane_handshake_advance(server) == 1 ? 1 : 0;
        if (!(done & 2)) done |= sealane_handshake_advance(client) == 1 ? 2 : 0;
    }
    STATUS(sealane_handshake_finish(&server, &a), 0);
    STATUS(sealane_handshake_finish(&client, &b), 0);
    CHECK(server == NULL && client == NULL);
    STATUS(sealane_send(b, "hello", 5, NULL, 0, -1), 0);
    STATUS(sealane_recv(a, -1, &message), 0);
    check_control(message, "hello");
    sealane_message_free(&message);
    sealane_channel_free(&a);
    sealane_channel_free(&b);

    /* A client that is refused is told so. */
    STATUS(sealane_connect_start(NULL, path, &client), 0);
    STATUS(sealane_accept_start(listener, &server), 0);
    STATUS(sealane_handshake_refuse(&server), 0);
    CHECK(server == NULL);
    FAILS(sealane_handshake_finish(&client, &b), ECONNREFUSED, "refused");
    CHECK(client == NULL && b == NULL);
    FAILS(sealane_handshake_refuse(&server), EFAULT, "used up");
    /* One that goes away, too. */
    STATUS(sealane_connect_start(NULL, path, &client), 0);
    STATUS(sealane_accept_start(listener, &server), 0);
    sealane_handshake_free(&client);
    sealane_handshake_free(&client);
    FAILS(sealane_handshake_finish(&server, &a), ECONNRESET, "closed");
    sealane_listener_free(&listener);
    sealane_listener_free(&listener);
    CHECK(access(path, F_OK) == -1);

    /* A socket that listens already. */
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/activated", directory);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    FAILS(sealane_listen_on(NULL, fd, &listener), EINVAL, "listening");
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 1) == 0);
    STATUS(sealane_listen_on(NULL, fd, &listener), 0);
    FAILS(sealane_listen_on(NULL, -5, &second), EBADF, "descriptor");
    FAILS(sealane_listen_on(NULL, 9999, &second), EBADF, "descriptor");
    sealane_listener_free(&listener);
    CHECK(access(address.sun_path, F_OK) == 0 && unlink(address.sun_path) == 0);
    close(fd);
}

static void sockets_and_children(void) {
    int ends[2], pipes[2];
    sealane_handshake *handshake, *other;
    sealane_channel *a = NULL, *b = NULL;
    sealane_message *message;
    CHECK(pipe(pipes) == 0);
    FAILS(sealane_handshake_start(NULL, pipes[0], &handshake), EPROTOTYPE, "SEQPACKET");
    FAILS(sealane_handshake_start(NULL, -1, &handshake), EBADF, "descriptor");
    close(pipes[0]);
    close(pipes[1]);
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
    STATUS(sealane_handshake_start(NULL, ends[0], &handshake), 0);
    STATUS(sealane_handshake_start(NULL, ends[1], &other), 0);
    close(ends[0]);
    close(ends[1]);
    FAILS(sealane_handshake_child_fd(handshake), EINVAL, "sealane_prepare");
    while (sealane_handshake_advance(handshake) != 1) CHECK(sealane_handshake_advance(other) >= 0);
    STATUS(sealane_handshake_finish(&handshake, &a), 0);
    STATUS(sealane_handshake_finish(&other, &b), 0);
    sealane_channel_free(&a);
    sealane_channel_free(&b);

    STATUS(sealane_prepare(NULL, &handshake), 0);
    FAILS(sealane_handshake_advance(handshake), EBUSY, "child_started");
    FAILS(sealane_handshake_fd(handshake), EBUSY, "child_started");
    FAILS(sealane_handshake_remaining_ms(handshake), EBUSY, "child_started");
    FAILS(sealane_handshake_finish(&handshake, &a), EBUSY, "child_started");
    CHECK(handshake != NULL);
    char name[SEALANE_NAME_SIZE];
    FAILS(sealane_handshake_child_name(handshake, name, 2), ERANGE, "SEALANE_NAME_SIZE");
    STATUS(sealane_handshake_child_name(handshake, name, sizeof name), 0);
    CHECK(atoi(name) == sealane_handshake_child_fd(handshake) && strchr(name, ':') != NULL);
    CHECK(fcntl(sealane_handshake_child_fd(handshake), F_GETFD) == FD_CLOEXEC);
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        FAILS(sealane_inherited_as(NULL, "99999", &b), ENOENT, "descriptor");
        FAILS(sealane_inherited_as(NULL, NULL, &b), ENOENT, "SEALANE_FD");
        STATUS(sealane_inherited_as(NULL, name, &b), 0);
        sealane_handshake_free(&handshake);
        STATUS(sealane_call(b, "ready?", 6, NULL, 0, -1, &message), 0);
        check_control(message, "go");
        sealane_message_free(&message);
        sealane_channel_free(&b);
        exit(0);
    }
    STATUS(sealane_handshake_child_started(handshake), 0);
    FAILS(sealane_handshake_child_started(handshake), EINVAL, "sealane_prepare");
    STATUS(sealane_handshake_finish(&handshake, &a), 0);
    STATUS(sealane_recv(a, -1, &message), 0);
    check_control(message, "ready?");
    uint64_t number;
    STATUS(sealane_message_expects_reply(message, &number), 1);
    sealane_message_free(&message);
    STATUS(sealane_reply(a, number, "go", 2, NULL, 0, -1), 0);
    FAILS(sealane_recv(a, -1, &message), EPIPE, "gone");
    sealane_channel_free(&a);
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);

    /* A child that never takes its end. */
    STATUS(sealane_prepare(NULL, &handshake), 0);
    STATUS(sealane_handshake_child_started(handshake), 0);
    FAILS(sealane_handshake_finish(&handshake, &a), ECONNRESET, "closed");
    CHECK(handshake == NULL && a == NULL);
}

static void sealed_buffers(void) {
    sealane_sealed *sealed, *opened = NULL;
    STATUS(sealane_sealed_new(5000, &sealed), 0);
    CHECK(sealane_sealed_len(sealed) == 5000);
    memset(sealane_sealed_data_mut(sealed), 9, 5000);
    FAILS(sealane_sealed_fd(sealed), EINVAL, "seal");
    STATUS(sealane_sealed_seal(sealed), 0);
    FAILS(sealane_sealed_seal(sealed), EINVAL, "not sealed yet");
    CHECK(sealane_sealed_data_mut(sealed) == NULL);
    int fd = sealane_sealed_fd(sealed);
    CHECK(fd >= 0);
    FAILS(sealane_sealed_open(fd, 4999, &opened), EBADMSG, "4999");
    STATUS(sealane_sealed_open(fd, 5000, &opened), 0);
    sealane_sealed_free(&sealed);
    sealane_sealed_free(&sealed);
    CHECK(sealane_sealed_len(opened) == 5000 && ((const char *)sealane_sealed_data(opened))[4999] == 9);
    sealane_sealed_free(&opened);
    int pipes[2];
    CHECK(pipe(pipes) == 0);
    FAILS(sealane_sealed_open(pipes[0], 1, &opened), EBADMSG, "regular file");
    close(pipes[0]);
    close(pipes[1]);
    CHECK(sealane_sealed_data(NULL) == NULL && sealane_sealed_len(NULL) == 0 && sealane_sealed_data_mut(NULL) == NULL);
    sealane_sealed_free(NULL);
}

static sealane_channel *channel_of_nobody(void) { return NULL; }

/* Null is found by each function that takes a pointer. */
static void nulls(void) {
    sealane_channel *channel;
    sealane_message *message;
    sealane_handshake *handshake;
    sealane_loan *loan;
    sealane_peer peer;
    STATUS(sealane_pair(NULL, NULL, &channel), -EFAULT);
    STATUS(sealane_channel_close(NULL), -EFAULT);
    STATUS(sealane_channel_recv_fd(NULL), -EFAULT);
    STATUS(sealane_channel_send_fd(NULL), -EFAULT);
    STATUS(sealane_channel_arm(NULL), -EFAULT);
    STATUS(sealane_channel_limits(NULL, NULL, NULL), -EFAULT);
    STATUS(sealane_channel_peer(NULL, &peer), -EFAULT);
    STATUS(sealane_channel_pidfd(NULL), -EFAULT);
    STATUS(sealane_request(NULL, NULL, 0, NULL, 0, 0, NULL), -EFAULT);
    STATUS(sealane_reply(NULL, 0, NULL, 0, NULL, 0, 0), -EFAULT);
    STATUS(sealane_call(NULL, NULL, 0, NULL, 0, -1, &message), -EFAULT);
    STATUS(sealane_cancel(NULL, 0), -EFAULT);
    STATUS(sealane_channel_next_number(NULL, NULL), -EFAULT);
    STATUS(sealane_wait_reply(NULL, 0, -1, &message), -EFAULT);
    FAILS(sealane_send(channel_of_nobody(), "x", (size_t)-1, NULL, 0, 0), EINVAL, "length");
    STATUS(sealane_recv(NULL, 0, &message), -EFAULT);
    STATUS(sealane_recv(NULL, 0, NULL), -EFAULT);
    STATUS(sealane_loan_open(NULL, 1, 0, &loan), -EFAULT);
    STATUS(sealane_loan_truncate(NULL, 1), -EFAULT);
    STATUS(sealane_loan_request(NULL, NULL, 0, NULL, 0, 0, NULL), -EFAULT);
    STATUS(sealane_loan_reply(NULL, 0, NULL, 0, NULL, 0, 0), -EFAULT);
    STATUS(sealane_message_has_payload(NULL), 0);
    STATUS(sealane_message_copy(NULL, 0, NULL, 0), -EFAULT);
    STATUS(sealane_message_blocks(NULL, add, NULL), -EFAULT);
    STATUS(sealane_message_release(NULL), -EFAULT);
    STATUS(sealane_message_take_fds(NULL, NULL, 0), -EFAULT);
    STATUS(sealane_message_expects_reply(NULL, NULL), 0);
    STATUS(sealane_message_in_reply_to(NULL, NULL), 0);
    STATUS(sealane_message_number(NULL, NULL), -EFAULT);
    size_t len = 1;
    CHECK(sealane_message_control(NULL, &len) == NULL && len == 0);
    CHECK(sealane_message_fd_count(NULL) == 0 && sealane_message_payload_len(NULL) == 0);
    STATUS(sealane_handshake_advance(NULL), -EFAULT);
    STATUS(sealane_handshake_needs_advance(NULL), 0);
    STATUS(sealane_handshake_fd(NULL), -EFAULT);
    STATUS(sealane_handshake_remaining_ms(NULL), -EFAULT);
    STATUS(sealane_handshake_peer(NULL, &peer), -EFAULT);
    STATUS(sealane_handshake_finish(NULL, &channel), -EFAULT);
    STATUS(sealane_handshake_refuse(NULL), -EFAULT);
    STATUS(sealane_handshake_child_fd(NULL), -EFAULT);
    STATUS(sealane_handshake_child_name(NULL, NULL, 0), -EFAULT);
    STATUS(sealane_handshake_child_started(NULL), -EFAULT);
    STATUS(sealane_connect_start(NULL, NULL, &handshake), -EFAULT);
    STATUS(sealane_prepare(NULL, NULL), -EFAULT);
    STATUS(sealane_listen(NULL, NULL, NULL), -EFAULT);
    STATUS(sealane_listener_fd(NULL), -EFAULT);
    STATUS(sealane_accept(NULL, 0, &channel), -EFAULT);
    STATUS(sealane_accept_start(NULL, &handshake), -EFAULT);
    STATUS(sealane_sealed_seal(NULL), -EFAULT);
    STATUS(sealane_sealed_fd(NULL), -EFAULT);
    STATUS(sealane_sealed_new(1, NULL), -EFAULT);
    sealane_channel_free(NULL);
    sealane_handshake_free(NULL);
    sealane_listener_free(NULL);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "a directory expected\n");
        return 2;
    }
    versions_and_sentences();
    options_grow();
    messages();
    loans();
    requests();
    threads();
    listeners(argv[1]);
    sockets_and_children();
    sealed_buffers();
    nulls();
    puts("every function was called");
    return 0;
}
