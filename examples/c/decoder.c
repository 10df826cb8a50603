/*
 * A decoder that may crash: `decoder [--timeout MS] [--crash-every N] [--hang-every N] FILE...` prints a line for each file,
 * with size and mean brightness of a JPEG, or a reason. A worker, this program in a sandbox, takes a file's descriptor, and
 * libjpeg writes pixels into the ring. A worker that crashes or hangs is killed and replaced, and the file is tried once more.
 * The last two options make every N-th request such a case.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sealane.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <jpeglib.h> /* Needs stdio.h, and jerror.h needs jpeglib.h. */
#include <jerror.h>

static sealane_channel *channel;
static unsigned char bytes[16 << 20]; /* The worker's private copy of a file; the host's private copy of pixels. */
static pid_t worker;
static jmp_buf failed;
static char reason[JMSG_LENGTH_MAX];

static void fail(j_common_ptr jpeg) {
    jpeg->err->format_message(jpeg, reason);
    longjmp(failed, 1);
}

/* Corrupt data are a warning of level -1, and an error here. */
static void warn(j_common_ptr jpeg, int level) { if (level < 0) fail(jpeg); }

/* Replies with the pixels, a byte each, and the image's size as control bytes; or with a reason as control bytes. */
static void decode(uint64_t request, size_t len) {
    static struct jpeg_decompress_struct jpeg;
    static struct jpeg_error_mgr errors;
    static sealane_loan *loan;
    jpeg.err = jpeg_std_error(&errors);
    errors.error_exit = fail;
    errors.emit_message = warn;
    if (setjmp(failed) == 0) {
        jpeg_create_decompress(&jpeg);
        jpeg_mem_src(&jpeg, bytes, len);
        jpeg_read_header(&jpeg, TRUE);
        uint32_t width = jpeg.image_width, size[2] = {width, jpeg.image_height};
        /* Nothing of the image's size is allocated before this line. */
        if ((uint64_t)size[0] * size[1] > sizeof bytes) ERREXIT(&jpeg, JERR_WIDTH_OVERFLOW);
        jpeg.out_color_space = JCS_GRAYSCALE;
        jpeg_start_decompress(&jpeg);
        if (sealane_loan_open(channel, (size_t)width * size[1], -1, &loan) < 0) ERREXIT1(&jpeg, JERR_OUT_OF_MEMORY, 0);
        for (JSAMPROW row = sealane_loan_data(loan); jpeg.output_scanline < jpeg.output_height; row += width) {
            jpeg_read_scanlines(&jpeg, &row, 1);
        }
        jpeg_finish_decompress(&jpeg);
        sealane_loan_reply(&loan, request, size, sizeof size, NULL, 0, -1);
    } else {
        sealane_loan_free(&loan);
        sealane_reply(channel, request, reason, strlen(reason), NULL, 0, -1);
    }
    jpeg_destroy_decompress(&jpeg);
}

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, action)
#define IF(value, then_skip, else_skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(value), then_skip, else_skip)
#define ALLOW(call) IF(SYS_##call, 0, 1), RETURN(SECCOMP_RET_ALLOW)
/* The upper half of an argument is not compared: the kernel allows nothing more for it in the calls below. */
#define ALLOW_IF(call, n, value) IF(SYS_##call, 0, 4), LOAD(args[n]), IF(value, 0, 1), RETURN(SECCOMP_RET_ALLOW), LOAD(nr)

/* Allows pread(2), and what a channel needs (docs/sandbox.md). Other system calls and executable memory fail with EPERM. */
static bool enter_sandbox(void) {
    struct sock_filter filter[] = {
        /* No kernel has both architectures. System calls of 32-bit programs have other numbers. */
        LOAD(arch), IF(AUDIT_ARCH_X86_64, 2, 0), IF(AUDIT_ARCH_AARCH64, 1, 0), RETURN(SECCOMP_RET_KILL_PROCESS), LOAD(nr),
        ALLOW(recvmsg), ALLOW(sendmsg), ALLOW(sendto), ALLOW(ppoll), ALLOW(futex), ALLOW(shutdown), ALLOW(close),
        ALLOW_IF(fcntl, 1, F_DUPFD_CLOEXEC), ALLOW(pread64), ALLOW(clock_gettime), ALLOW(restart_syscall), ALLOW(exit_group),
        ALLOW_IF(mmap, 2, PROT_READ | PROT_WRITE), ALLOW_IF(mprotect, 2, PROT_READ | PROT_WRITE),
        ALLOW(munmap), ALLOW(mremap), ALLOW(madvise), ALLOW(brk), ALLOW(sigaltstack), ALLOW(rt_sigreturn),
        /* A crash that cannot abort the process can become an endless loop. */
        ALLOW(rt_sigaction), ALLOW(rt_sigprocmask), ALLOW(getpid), ALLOW(gettid), ALLOW_IF(tgkill, 0, getpid()),
        RETURN(SECCOMP_RET_ERRNO | EPERM),
    };
    struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
    const struct rlimit memory = {256 << 20, 256 << 20}, files = {16, 16}, core = {0, 0};
    return setrlimit(RLIMIT_AS, &memory) == 0 && setrlimit(RLIMIT_NOFILE, &files) == 0 && setrlimit(RLIMIT_CORE, &core) == 0 &&
           prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static int work(const char *name) {
    struct sealane_options options = {.size = sizeof options, .max_fds = 1, .max_peer_ring_capacity = SEALANE_NO_RING};
    options.ring_capacity = sealane_ring_for(sizeof bytes, 0);
    sealane_message *message;
    uint64_t request;
    int file;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* The handshake fails if the host ended before this line. */
    if (sealane_inherited_as(&options, name, &channel) < 0 || !enter_sandbox()) return 1;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) close(fd);
    while (sealane_recv(channel, -1, &message) == 0) {
        const char *fault = sealane_message_control(message, NULL);
        if (sealane_message_expects_reply(message, &request) != 1 || sealane_message_take_fds(message, &file, 1) != 1) return 1;
        if (*fault == 'c') abort();
        if (*fault == 'h') for (;;) continue;
        size_t len = 0;
        for (ssize_t n; (n = pread(file, bytes + len, sizeof bytes - len, (off_t)len)) > 0;) len += (size_t)n;
        close(file);
        decode(request, len);
        sealane_message_free(&message);
    }
    return 0;
}

static int start(void) {
    struct sealane_options options = {.size = sizeof options, .max_fds = SEALANE_NONE, .ring_capacity = SEALANE_NO_RING};
    char name[SEALANE_NAME_SIZE];
    sealane_handshake *handshake;
    if (sealane_prepare(&options, &handshake) < 0) return -1;
    sealane_handshake_child_name(handshake, name, sizeof name);
    worker = fork();
    if (worker == 0) {
        close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
        fcntl(sealane_handshake_child_fd(handshake), F_SETFD, 0);
        execl("/proc/self/exe", "decoder", "--worker", name, (char *)NULL);
        _exit(127);
    }
    sealane_handshake_child_started(handshake);
    return sealane_handshake_finish(&handshake, &channel);
}

/* Asks the worker, or a new one if there is none. Returns whether the worker answered; if not, the worker is gone. */
static bool ask(const char *fault, int file, int timeout_ms, char *text, size_t size) {
    sealane_message *reply = NULL;
    int end = 0, status = worker > 0 ? 0 : start();
    if (status == 0) status = sealane_call(channel, fault, 1, &file, 1, timeout_ms, &reply);
    const char *problem = status < 0 ? sealane_last_error() : "the reply is neither an image nor a reason";
    size_t len = 0, pixels = sealane_message_payload_len(reply);
    const uint32_t *control = sealane_message_control(reply, &len);
    if (status == 0 && !sealane_message_has_payload(reply)) {
        snprintf(text, size, "%.*s", (int)len, (const char *)control);
    } else if (status == 0 && len == 2 * sizeof *control && pixels > 0 && pixels <= sizeof bytes &&
               (uint64_t)control[0] * control[1] == pixels && sealane_message_copy(reply, 0, bytes, pixels) == 0) {
        uint64_t sum = 0;
        for (size_t i = 0; i < pixels; i++) sum += bytes[i];
        snprintf(text, size, "%ux%u, mean brightness %.1f", control[0], control[1], (double)sum / (double)pixels);
    } else {
        if (worker > 0 && kill(worker, SIGKILL) == 0) waitpid(worker, &end, 0);
        snprintf(text, size, "%s (worker: %s)", problem, WIFSIGNALED(end) ? strsignal(WTERMSIG(end)) : "ended by itself");
        sealane_channel_free(&channel);
        worker = 0;
    }
    sealane_message_free(&reply);
    return worker > 0;
}

/* Escapes what a terminal could obey: names and reasons are hostile. */
static void print(const char *text, char end) {
    for (; *text != '\0'; text++) printf(*text < ' ' || *text > '~' || *text == '\\' ? "\\x%02x" : "%c", (unsigned char)*text);
    putchar(end);
}

int main(int argc, char **argv) {
    const struct option names[] = {{"timeout", 1, NULL, 't'}, {"crash-every", 1, NULL, 'c'}, {"hang-every", 1, NULL, 'h'}, {0}};
    int requests = 0, settings[128] = {['t'] = 5000, ['c'] = 1 << 30, ['h'] = 1 << 30};
    if (argc == 3 && strcmp(argv[1], "--worker") == 0) return work(argv[2]);
    signal(SIGCHLD, SIG_DFL); /* With SIG_IGN the kernel would reap the workers. */
    for (int name; (name = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        if (optarg == NULL || (settings[name] = atoi(optarg)) <= 0) return 2;
    }
    for (; optind < argc; optind++) {
        char text[300] = "no regular file of at most 16 MiB", path[32];
        struct stat status;
        int file = -1, place = open(argv[optind], O_PATH | O_NOFOLLOW | O_CLOEXEC); /* A FIFO would block. */
        bool found = place >= 0 && fstat(place, &status) == 0;
        bool fits = found && S_ISREG(status.st_mode) && status.st_size <= (off_t)sizeof bytes;
        snprintf(path, sizeof path, "/proc/self/fd/%d", place);
        if (fits) file = open(path, O_RDONLY | O_CLOEXEC);
        if (!found || (fits && file < 0)) snprintf(text, sizeof text, "%s", strerror(errno));
        for (int tries = 0; file >= 0 && tries < 2; tries++) {
            requests++;
            const char *fault = requests % settings['c'] == 0 ? "c" : requests % settings['h'] == 0 ? "h" : "-";
            if (ask(fault, file, settings['t'], text, sizeof text)) break;
        }
        if (file >= 0) close(file);
        if (place >= 0) close(place);
        print(argv[optind], '\t');
        print(text, '\n');
    }
    return 0;
}
