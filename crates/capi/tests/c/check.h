/* Checks of the C tests. Each prints its place and the library's sentence, and ends the program. */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sealane.h"

#define CHECK(condition)                                                                          \
    do {                                                                                          \
        if (!(condition)) {                                                                       \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition,                   \
                    sealane_last_error());                                                        \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

/* The call has this status. */
#define STATUS(call, expected)                                                                    \
    do {                                                                                          \
        int status_ = (call), expected_ = (expected);                                             \
        if (status_ != expected_) {                                                               \
            fprintf(stderr, "%s:%d: %s: %d (%s) expected, %d (%s) found: %s\n", __FILE__, __LINE__, #call, expected_, \
                    strerror(abs(expected_)), status_, strerror(abs(status_)), sealane_last_error()); \
            exit(1);                                                                              \
        }                                                                                         \
    } while (0)

/* The call fails with this errno, and its sentence has this text. */
#define FAILS(call, errno_, text)                                                                 \
    do {                                                                                          \
        STATUS(call, -(errno_));                                                                  \
        CHECK(strstr(sealane_last_error(), text) != NULL);                                        \
    } while (0)

#endif
