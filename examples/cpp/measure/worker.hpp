// The worker of both pipes.
#ifndef WORKER_HPP
#define WORKER_HPP

#include "../ipc_pipe.hpp"
#include "datagram_pipe.hpp"
#include "protocol.hpp"

#include <cstdio>
#include <cstdlib>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

inline void require(const sealane::Result<void> &result, const char *what) {
    if (result) return;
    std::fprintf(stderr, "%s: %s\n", what, result.error().message());
    std::exit(1);
}

inline void require(bool is_right, const char *what) {
    require(is_right ? sealane::Result<void>() : sealane::Error(EBADMSG, "something else expected"), what);
}

inline Sum sum_of(const DatagramMessage &message) { return sum_of(message.data()); }

inline Sum sum_of(const IpcMessage &message) {
    if (!message.is_lent()) return sum_of(message.data());
    Sum sum = 0;
    require(message.blocks([&](sealane::Bytes block) { sum += sum_of(block); }), "blocks");
    return sum;
}

inline std::uint64_t inode_of(int fd) {
    struct stat status;
    require(::fstat(fd, &status) == 0, "fstat(2)");
    return status.st_ino;
}

/// Answers until the host is gone.
template <typename Pipe> int serve(Pipe &pipe) {
    int status = 0;
    std::uint64_t counted = 0;
    Sum total = 0;
    pipe.died = [&](const sealane::Error &error) { status = error == EPIPE ? 0 : 1; };
    pipe.received = [&](auto &message) {
        switch (message.command()) {
        case describe: {
            Description description{static_cast<std::uint64_t>(::getpid()), counted, 0};
            for (sealane::Fd &fd : message.take_fds()) description.inode = inode_of(fd.get());
            require(pipe.reply(message, sealane::bytes_of(description)), "description");
            break;
        }
        case echo_with_fd: require(message.take_fds().size() == 1, "descriptor"); [[fallthrough]];
        case echo: require(pipe.reply(message, message.data()), "echo"); break;
        case hang: break;
        case count:
            total += sum_of(message);
            counted++;
            break;
        case sum:
            total += sum_of(message);
            require(pipe.send_async(sum, sealane::bytes_of(std::exchange(total, 0))), "sum");
            break;
        default: require(false, "command");
        }
    };
    while (pipe.is_connected()) {
        pollfd loop{pipe.fd(), POLLIN, 0};
        if (::poll(&loop, 1, -1) == 1) pipe.dispatch();
    }
    return status;
}

#endif
