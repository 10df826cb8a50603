/* Ordinary life: forks, daemons, closed standard streams, namespaces, timers. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { FOR_EVER = -1 };

/* Waits for a child that has to succeed. */
static void succeeds(pid_t child) {
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void send_and_check(sealane_channel *from, sealane_channel *to, const char *text) {
    sealane_loan *loan;
    sealane_message *message;
    STATUS(sealane_loan_open(from, strlen(text), FOR_EVER, &loan), 0);
    memcpy(sealane_loan_data(loan), text, strlen(text));
    STATUS(sealane_loan_send(&loan, text, strlen(text), NULL, 0, FOR_EVER), 0);
    STATUS(sealane_recv(to, FOR_EVER, &message), 0);
    char payload[64] = {0};
    CHECK(sealane_message_payload_len(message) == strlen(text));
    STATUS(sealane_message_copy(message, 0, payload, strlen(text)), 0);
    CHECK(strcmp(payload, text) == 0);
    sealane_message_free(&message);
}

static void *receive_for_ever(void *argument) {
    sealane_message *message;
    int status;
    while ((status = sealane_recv(argument, FOR_EVER, &message)) == -EBUSY) {}
    STATUS(status, 0);
    sealane_message_free(&message);
    return NULL;
}

/* A fork frees its copies of everything, while another thread is receiving. The parent does not notice. */
static void fork_that_frees_everything_is_not_noticed(const char *directory) {
    char path[256];
    snprintf(path, sizeof path, "%s/forked", directory);
    sealane_channel *a, *b, *c, *d;
    sealane_pipe *pipe;
    sealane_loan *loan;
    sealane_message *message;
    sealane_handshake *handshake;
    sealane_listener *listener;
    sealane_sealed *sealed;
    STATUS(sealane_pair(NULL, &a, &b), 0);
    STATUS(sealane_pair(NULL, &c, &d), 0);
    STATUS(sealane_pipe_from_channel(&c, &pipe), 0);
    STATUS(sealane_listen(NULL, path, &listener), 0);
    STATUS(sealane_prepare(NULL, &handshake), 0);
    STATUS(sealane_sealed_new(100, &sealed), 0);
    STATUS(sealane_loan_open(a, 4, 0, &loan), 0);
    memcpy(sealane_loan_data(loan), "kept", 4);
    STATUS(sealane_loan_send(&loan, NULL, 0, NULL, 0, 0), 0);
    STATUS(sealane_recv(b, FOR_EVER, &message), 0);
    STATUS(sealane_loan_open(a, 4, 0, &loan), 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, receive_for_ever, b) == 0);
    sealane_message *none = NULL;
    int status;
    while ((status = sealane_recv(b, 0, &none)) == -EAGAIN) sched_yield();
    STATUS(status, -EBUSY);
    pid_t child = fork();
    if (child == 0) {
        sealane_message_free(&message);
        sealane_loan_free(&loan);
        sealane_pipe_free(&pipe);
        sealane_channel_free(&a);
        sealane_channel_free(&b);
        sealane_channel_free(&d);
        sealane_handshake_free(&handshake);
        sealane_listener_free(&listener);
        sealane_sealed_free(&sealed);
        _exit(0);
    }
    succeeds(child);
    char kept[4];
    STATUS(sealane_message_copy(message, 0, kept, 4), 0);
    CHECK(memcmp(kept, "kept", 4) == 0);
    sealane_message_free(&message);
    memcpy(sealane_loan_data(loan), "sent", 4);
    STATUS(sealane_loan_send(&loan, NULL, 0, NULL, 0, 0), 0);
    CHECK(pthread_join(thread, NULL) == 0);
    send_and_check(a, b, "after the fork");
    STATUS(sealane_send(d, "x", 1, NULL, 0, 0), 0);
    struct pollfd wait = {.fd = sealane_pipe_fd(pipe), .events = POLLIN};
    CHECK(poll(&wait, 1, FOR_EVER) == 1);
    CHECK(sealane_pipe_dispatch(pipe) & SEALANE_PIPE_CAN_RECV);
    STATUS(sealane_pipe_recv(pipe, 0, &message), 0);
    sealane_message_free(&message);
    CHECK(access(path, F_OK) == 0);
    STATUS(sealane_sealed_seal(sealed), 0);
    sealane_sealed_free(&sealed);
    sealane_listener_free(&listener);
    CHECK(access(path, F_OK) != 0);
    sealane_handshake_free(&handshake);
    sealane_pipe_free(&pipe);
    sealane_channel_free(&a);
    sealane_channel_free(&b);
    sealane_channel_free(&d);
}

static void check_text(sealane_message **message, const char *text) {
    size_t len;
    const void *bytes = sealane_message_bytes(*message, &len);
    CHECK(len == strlen(text) && memcmp(bytes, text, len) == 0);
    sealane_message_free(message);
}

/* A daemon goes on with the channel and the pipe that it had before; the process that was started has ended. */
static void daemon_goes_on(void) {
    sealane_channel *a, *b, *c, *d;
    sealane_pipe *pipe;
    sealane_message *message;
    STATUS(sealane_pair(NULL, &a, &b), 0);
    STATUS(sealane_pair(NULL, &c, &d), 0);
    STATUS(sealane_pipe_from_channel(&c, &pipe), 0);
    pid_t child = fork();
    if (child == 0) {
        CHECK(daemon(1, 1) == 0);
        STATUS(sealane_recv(a, FOR_EVER, &message), 0);
        check_text(&message, "to the daemon");
        STATUS(sealane_pipe_recv(pipe, FOR_EVER, &message), 0);
        check_text(&message, "to its pipe");
        STATUS(sealane_send(a, "from the daemon", 15, NULL, 0, FOR_EVER), 0);
        STATUS(sealane_pipe_send_any(pipe, "from its pipe", 13, NULL, 0), 0);
        sealane_channel_free(&a);
        sealane_pipe_free(&pipe);
        _exit(0);
    }
    succeeds(child);
    STATUS(sealane_send(b, "to the daemon", 13, NULL, 0, FOR_EVER), 0);
    STATUS(sealane_send(d, "to its pipe", 11, NULL, 0, FOR_EVER), 0);
    STATUS(sealane_recv(b, FOR_EVER, &message), 0);
    check_text(&message, "from the daemon");
    STATUS(sealane_recv(d, FOR_EVER, &message), 0);
    check_text(&message, "from its pipe");
    /* Though this process has copies of the daemon's ends. */
    STATUS(sealane_recv(b, FOR_EVER, &message), -EPIPE);
    STATUS(sealane_recv(d, FOR_EVER, &message), -EPIPE);
    sealane_channel_free(&a);
    sealane_channel_free(&b);
    sealane_pipe_free(&pipe);
    sealane_channel_free(&d);
}

/* Without standard streams, nothing of the library's gets their numbers, and nothing that a program takes from it. */
static void nothing_takes_the_place_of_a_standard_stream(void) {
    pid_t child = fork();
    if (child != 0) {
        succeeds(child);
        return;
    }
    int errors = fcntl(2, F_DUPFD_CLOEXEC, 100), null = open("/dev/null", O_RDWR | O_CLOEXEC);
    null = fcntl(null, F_DUPFD_CLOEXEC, 101);
    close(0);
    close(1);
    close(2);
    sealane_channel *a, *b;
    sealane_pipe *pipe;
    sealane_message *message;
    sealane_handshake *handshake;
    sealane_sealed *sealed, *opened;
    int failed = sealane_pair(NULL, &a, &b) < 0 || sealane_prepare(NULL, &handshake) < 0 ||
                 sealane_send(a, "x", 1, &null, 1, 0) < 0 || sealane_recv(b, FOR_EVER, &message) < 0;
    int taken = -1;
    failed = failed || sealane_message_take_fds(message, &taken, 1) != 1;
    failed = failed || sealane_pipe_from_channel(&a, &pipe) < 0 || sealane_pipe_fd(pipe) < 3;
    failed = failed || sealane_sealed_new(10, &sealed) < 0 || sealane_sealed_seal(sealed) < 0 ||
             sealane_sealed_open(sealane_sealed_fd(sealed), 4096, &opened) < 0;
    /* Queues of a pipe copy descriptors. */
    int ends[2];
    sealane_handshake *begun;
    sealane_pipe *queue;
    failed = failed || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0;
    for (int i = 0; i < 2 && !failed; i++) {
        int end = ends[i];
        ends[i] = fcntl(end, F_DUPFD_CLOEXEC, 110);
        close(end);
    }
    failed = failed || sealane_handshake_start(NULL, ends[0], &begun) < 0 || sealane_pipe_new(&begun, &queue) < 0 ||
             sealane_pipe_send_any(queue, "x", 1, &null, 1) < 0;
    int used = taken < 3 || fcntl(0, F_GETFD) >= 0 || fcntl(1, F_GETFD) >= 0 || fcntl(2, F_GETFD) >= 0;
    dup2(errors, 2);
    CHECK(!failed);
    CHECK(!used);
    _exit(0);
}

/* A worker in namespaces of its own, where the kernel allows them, is called. */
static void namespaces_do_not_matter(void) {
    const struct { int flags; const char *name; } cases[] = {
        {CLONE_NEWUSER, "user"},
        {CLONE_NEWUSER | CLONE_NEWNET, "user and net"},
        {CLONE_NEWUSER | CLONE_NEWPID, "user and pid"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        sealane_handshake *handshake;
        sealane_channel *channel;
        sealane_message *message;
        char name[SEALANE_NAME_SIZE];
        STATUS(sealane_prepare(NULL, &handshake), 0);
        STATUS(sealane_handshake_child_name(handshake, name, sizeof name), 0);
        int fd = sealane_handshake_child_fd(handshake);
        pid_t child = fork();
        if (child == 0) {
            if (unshare(cases[i].flags) < 0) _exit(77);
            /* The child of this one is the first that is in a new pid namespace. */
            pid_t inner = fork();
            if (inner == 0) {
                fcntl(fd, F_SETFD, 0);
                execl("/proc/self/exe", "worker", name, NULL);
                _exit(127);
            }
            int status;
            waitpid(inner, &status, 0);
            _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 126);
        }
        STATUS(sealane_handshake_child_started(handshake), 0);
        int status = sealane_handshake_finish(&handshake, &channel);
        if (status < 0) {
            int ended;
            CHECK(waitpid(child, &ended, 0) == child && WIFEXITED(ended));
            STATUS(WEXITSTATUS(ended), 77);
            fprintf(stderr, "SKIPPED: a namespace (%s) is forbidden here\n", cases[i].name);
            continue;
        }
        STATUS(sealane_call(channel, "who?", 4, NULL, 0, FOR_EVER, &message), 0);
        uint32_t pid;
        size_t len;
        const void *control = sealane_message_control(message, &len);
        CHECK(len == sizeof pid);
        memcpy(&pid, control, sizeof pid);
        CHECK(pid == (cases[i].flags & CLONE_NEWPID ? 0 : (uint32_t)getpid()));
        sealane_message_free(&message);
        sealane_channel_free(&channel);
        succeeds(child);
    }
}

/* Answers one call: who its parent is. */
static int worker(const char *name) {
    sealane_channel *channel;
    sealane_message *message;
    sealane_peer peer;
    uint64_t number;
    STATUS(sealane_inherited_as(NULL, name, &channel), 0);
    STATUS(sealane_channel_peer(channel, &peer), 0);
    STATUS(sealane_recv(channel, FOR_EVER, &message), 0);
    STATUS(sealane_message_expects_reply(message, &number), 1);
    STATUS(sealane_reply(channel, number, &peer.pid, sizeof peer.pid, NULL, 0, FOR_EVER), 0);
    sealane_message_free(&message);
    STATUS(sealane_recv(channel, FOR_EVER, &message), -EPIPE);
    sealane_channel_free(&channel);
    return 0;
}

static volatile sig_atomic_t ticks;

static void tick(int signal) {
    (void)signal;
    ticks++;
}

/* Signals that come all the time neither end a wait nor make it longer than its time. */
static void timer_interrupts_nothing(void) {
    struct sigaction action = {.sa_handler = tick};
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    sealane_channel *a, *b;
    sealane_message *message;
    sealane_pipe *pipe;
    STATUS(sealane_pair(NULL, &a, &b), 0);
    while (ticks < 10) STATUS(sealane_recv(a, 20, &message), -ETIMEDOUT);
    STATUS(sealane_pipe_from_channel(&b, &pipe), 0);
    for (int before = ticks; ticks < before + 10;) STATUS(sealane_pipe_recv(pipe, 20, &message), -ETIMEDOUT);
    STATUS(sealane_pipe_call_any(pipe, "x", 1, NULL, 0, 20, &message), -ETIMEDOUT);
    setitimer(ITIMER_REAL, &never, NULL);
    signal(SIGALRM, SIG_DFL);
    sealane_channel_free(&a);
    sealane_pipe_free(&pipe);
}

static void fail(int signal) {
    (void)signal;
    int before = errno;
    sealane_message *message;
    /* It fails before it looks at anything that the interrupted function may be using. */
    if (sealane_recv(NULL, 0, &message) == -EFAULT) ticks++;
    errno = before;
}

/* A handler that fails itself, in the middle of a failure of the program, ends nothing. */
static void handler_that_fails_harms_nothing(void) {
    struct sigaction action = {.sa_handler = fail};
    struct itimerval often = {{0, 100}, {0, 100}}, never = {{0, 0}, {0, 0}};
    sealane_channel *a, *b;
    sealane_message *message;
    STATUS(sealane_pair(NULL, &a, &b), 0);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    for (int before = ticks; ticks < before + 500;) STATUS(sealane_recv(a, 0, &message), -EAGAIN);
    setitimer(ITIMER_REAL, &never, NULL);
    signal(SIGALRM, SIG_DFL);
    sealane_channel_free(&a);
    sealane_channel_free(&b);
}

static void *receive_and_be_cancelled(void *argument) {
    receive_for_ever(argument);
    for (;;) pthread_testcancel();
    return NULL;
}

/* A thread that is cancelled while it waits ends after it, and leaves the channel as it should be. */
static void cancelled_thread_leaves_the_channel_usable(void) {
    sealane_channel *a, *b;
    sealane_message *message;
    pthread_t thread;
    void *result;
    STATUS(sealane_pair(NULL, &a, &b), 0);
    CHECK(pthread_create(&thread, NULL, receive_and_be_cancelled, b) == 0);
    while (sealane_recv(b, 0, &message) != -EBUSY) sched_yield();
    CHECK(pthread_cancel(thread) == 0);
    STATUS(sealane_send(a, "x", 1, NULL, 0, 0), 0);
    CHECK(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
    send_and_check(a, b, "afterwards");
    sealane_channel_free(&a);
    sealane_channel_free(&b);
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[0], "worker") == 0) return worker(argv[1]);
    fork_that_frees_everything_is_not_noticed(argv[1]);
    daemon_goes_on();
    nothing_takes_the_place_of_a_standard_stream();
    namespaces_do_not_matter();
    timer_interrupts_nothing();
    handler_that_fails_harms_nothing();
    cancelled_thread_leaves_the_channel_usable();
    puts("ordinary life changes nothing");
    return 0;
}
