/* Counts the allocations of messages, by its own malloc in front of the C library's. Prints a line for each kind of message. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#include "check.h"

static atomic_ullong allocations;

/* glibc's own names of these functions. `dlsym` would allocate itself. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_realloc(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    atomic_fetch_add(&allocations, 1);
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
    *memory = aligned_alloc(alignment, size);
    return *memory == NULL ? ENOMEM : 0;
}

static sealane_channel *a, *b;
static unsigned char control[200], payload[128 << 10];
static int null_fd;

static void free_after(sealane_message **message) {
    size_t len;
    CHECK(sealane_message_control(*message, &len) != NULL);
    sealane_message_free(message);
}

static void control_bytes(size_t len) {
    sealane_message *message;
    STATUS(sealane_send(a, control, len, NULL, 0, -1), 0);
    STATUS(sealane_recv(b, -1, &message), 0);
    free_after(&message);
}

static void short_control_bytes(void) { control_bytes(64); }

static void long_control_bytes(void) { control_bytes(200); }

static void descriptors(int count) {
    sealane_message *message;
    int sent[3] = {null_fd, null_fd, null_fd}, received[3];
    STATUS(sealane_send(a, control, 64, sent, count, -1), 0);
    STATUS(sealane_recv(b, -1, &message), 0);
    STATUS(sealane_message_take_fds(message, received, 3), count);
    for (int i = 0; i < count; i++) close(received[i]);
    free_after(&message);
}

static void one_descriptor(void) { descriptors(1); }

static void three_descriptors(void) { descriptors(3); }

static int add(void *sum, const void *bytes, size_t len) {
    for (size_t i = 0; i < len; i++) *(uint64_t *)sum += ((const unsigned char *)bytes)[i];
    return 0;
}

static void loan(const void *data, size_t len) {
    sealane_loan *loan;
    sealane_message *message;
    uint64_t sum = 0;
    STATUS(sealane_loan_open(a, sizeof payload, -1, &loan), 0);
    memset(sealane_loan_data(loan), 1, sizeof payload);
    STATUS(sealane_loan_send(&loan, data, len, NULL, 0, -1), 0);
    STATUS(sealane_recv(b, -1, &message), 0);
    STATUS(sealane_message_blocks(message, add, &sum), 0);
    CHECK(sum == sizeof payload);
    free_after(&message);
}

static void loan_in_blocks(void) { loan(NULL, 0); }

static void loan_with_control_bytes(void) { loan(control, 64); }

static void loan_copied(void) {
    sealane_loan *loan;
    sealane_message *message;
    STATUS(sealane_loan_open(a, sizeof payload, -1, &loan), 0);
    STATUS(sealane_loan_send(&loan, NULL, 0, NULL, 0, -1), 0);
    STATUS(sealane_recv(b, -1, &message), 0);
    STATUS(sealane_message_copy(message, 0, payload, sizeof payload), 0);
    free_after(&message);
}

static void answer(void) {
    sealane_message *request;
    uint64_t number;
    STATUS(sealane_recv(b, -1, &request), 0);
    STATUS(sealane_message_expects_reply(request, &number), 1);
    STATUS(sealane_reply(b, number, control, 64, NULL, 0, -1), 0);
    free_after(&request);
}

static void request_and_reply(void) {
    sealane_message *reply;
    uint64_t number;
    STATUS(sealane_request(a, control, 64, NULL, 0, -1, &number), 0);
    answer();
    STATUS(sealane_recv(a, -1, &reply), 0);
    free_after(&reply);
}

static void call(void) {
    sealane_message *reply;
    STATUS(sealane_call(a, control, 64, NULL, 0, -1, &reply), 0);
    free_after(&reply);
}

static void count(const char *name, void (*message)(void), int messages) {
    for (int i = 0; i < 100; i++) message();
    unsigned long long before = atomic_load(&allocations);
    for (int i = 0; i < messages; i++) message();
    unsigned long long after = atomic_load(&allocations);
    printf("%s: %llu\n", name, after - before);
}

static void *answer_calls(void *calls) {
    for (int i = 0; i < *(int *)calls; i++) answer();
    return NULL;
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    int messages = atoi(argv[1]), calls = messages + 100;
    CHECK(allocations == 0);
    free(malloc(1));
    CHECK(allocations == 1);
    STATUS(sealane_pair(NULL, &a, &b), 0);
    CHECK(allocations > 1);
    null_fd = open("/dev/null", O_RDONLY);
    count("64 B", short_control_bytes, messages);
    count("200 B", long_control_bytes, messages);
    count("64 B, a descriptor", one_descriptor, messages);
    count("64 B, 3 descriptors", three_descriptors, messages);
    count("128 KiB in blocks", loan_in_blocks, messages);
    count("128 KiB in blocks, 64 B", loan_with_control_bytes, messages);
    count("128 KiB copied", loan_copied, messages);
    count("request and reply of 64 B", request_and_reply, messages);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, answer_calls, &calls) == 0);
    count("call of 64 B", call, messages);
    CHECK(pthread_join(thread, NULL) == 0);
    sealane_channel_free(&a);
    sealane_channel_free(&b);
    return 0;
}
