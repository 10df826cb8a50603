/* The C end of a channel whose other end is Rust's: `peer NAME`, or `peer` for the environment's. Answers each request with what
   it got; ends with the channel. */
#include <stdint.h>
#include <unistd.h>

#include "check.h"

int main(int argc, char **argv) {
    struct sealane_options options = {.size = sizeof options, .ring_capacity = 1 << 20, .max_control = 1000, .max_fds = 3, .max_requests = 2};
    sealane_channel *channel;
    sealane_message *message;
    STATUS(sealane_inherited_as(&options, argc > 1 ? argv[1] : NULL, &channel), 0);
    int status;
    while ((status = sealane_recv(channel, -1, &message)) == 0) {
        uint64_t number;
        size_t control_len, len = sealane_message_payload_len(message);
        const void *control = sealane_message_control(message, &control_len);
        STATUS(sealane_message_expects_reply(message, &number), 1);
        int fds[3], count = sealane_message_take_fds(message, fds, 3);
        sealane_loan *loan;
        STATUS(sealane_loan_open(channel, len, -1, &loan), 0);
        if (len > 0) STATUS(sealane_message_copy(message, 0, sealane_loan_data(loan), len), 0);
        STATUS(sealane_loan_reply(&loan, number, control, control_len, fds, count, -1), 0);
        for (int i = 0; i < count; i++) close(fds[i]);
        sealane_message_free(&message);
    }
    FAILS(status, EPIPE, "gone");
    sealane_channel_free(&channel);
    return 0;
}
