#include "datagram_pipe.hpp"

#include <charconv>
#include <cstring>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

using sealane::Error;
using sealane::Result;
using Clock = std::chrono::steady_clock;

extern char **environ;

// SCM_MAX_FD, unix(7).
static constexpr std::size_t max_fds = 253;

static Error failure(const char *what) {
    int number = errno;
    return Error(number, std::string(what) + ": " + std::strerror(number));
}

Result<void> DatagramPipe::start(const char *program) {
    stop();
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0) return failure("socketpair(2)");
    socket_.reset(ends[0]);
    sealane::Fd child_end(ends[1]);

    static constexpr int child_fd = 3;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, child_end.get(), child_fd);
    posix_spawn_file_actions_addclose(&actions, 0);
    posix_spawn_file_actions_addclose(&actions, 1);
    posix_spawn_file_actions_addclosefrom_np(&actions, child_fd + 1);
    std::string option("--datagrams"), number = std::to_string(child_fd);
    char *arguments[] = {const_cast<char *>(program), option.data(), number.data(), nullptr};
    int error = posix_spawn(&worker_, program, &actions, nullptr, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error == 0) return {};
    worker_ = -1;
    return Error(error, std::string("the worker could not be started: ") + program);
}

Result<void> DatagramPipe::inherit(const char *number) {
    int fd = -1;
    std::from_chars(number, number + std::strlen(number), fd);
    socket_.reset(fd);
    // A datagram socket does not tell that its peer is gone.
    if (::prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) return failure("prctl(2)");
    return {};
}

void DatagramPipe::stop() {
    socket_.reset();
    header_.reset();
    if (worker_ < 0) return;
    ::kill(worker_, SIGKILL);
    while (::waitpid(worker_, nullptr, 0) < 0 && errno == EINTR) {
    }
    worker_ = -1;
}

void DatagramPipe::die(const Error &error) {
    stop();
    if (died) died(error);
}

Result<void> DatagramPipe::send(DatagramMessage::Words words, sealane::Data data, sealane::Fds fds) {
    if (fds.size() > max_fds) return Error(EMSGSIZE, "too many descriptors");
    Header header{static_cast<std::uint32_t>(sizeof words + data.size()), static_cast<std::uint32_t>(fds.size())};
    if (::send(socket_.get(), &header, sizeof header, MSG_NOSIGNAL) < 0) return failure("header");

    iovec parts[] = {{&words, sizeof words}, {const_cast<void *>(data.data()), data.size()}};
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    alignas(cmsghdr) char control[CMSG_SPACE(max_fds * sizeof(int))];
    if (fds.size() > 0) {
        std::size_t size = fds.size() * sizeof(int);
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(size);
        cmsghdr *part = CMSG_FIRSTHDR(&message);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(size);
        std::memcpy(CMSG_DATA(part), fds.data(), size);
    }
    if (::sendmsg(socket_.get(), &message, MSG_NOSIGNAL) < 0) return failure("data");
    return {};
}

Result<DatagramMessage> DatagramPipe::receive(Header header) {
    if (header.fd_count > max_fds || header.size < sizeof(DatagramMessage::Words)) return Error(EBADMSG, "a wrong header");
    DatagramMessage result;
    result.bytes_.resize(header.size);
    iovec part{result.bytes_.data(), result.bytes_.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(max_fds * sizeof(int))];
    if (header.fd_count > 0) {
        message.msg_control = control;
        message.msg_controllen = CMSG_SPACE(header.fd_count * sizeof(int));
    }
    ssize_t size = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
    if (size < 0) return failure("data");
    for (cmsghdr *each = CMSG_FIRSTHDR(&message); each; each = CMSG_NXTHDR(&message, each)) {
        if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS) continue;
        std::size_t count = (each->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; i++) {
            int fd;
            std::memcpy(&fd, CMSG_DATA(each) + i * sizeof fd, sizeof fd);
            result.fds_.emplace_back(fd);
        }
    }
    bool is_cut = message.msg_flags & (MSG_TRUNC | MSG_CTRUNC);
    if (is_cut || static_cast<std::size_t>(size) != header.size || result.fds_.size() != header.fd_count)
        return Error(EBADMSG, "data that are not what the header says");
    std::memcpy(&result.words_, result.bytes_.data(), sizeof result.words_);
    return result;
}

void DatagramPipe::dispatch() {
    if (!header_) {
        Header header;
        ssize_t size = ::recv(socket_.get(), &header, sizeof header, MSG_TRUNC);
        if (size < 0 && errno == EAGAIN) return;
        if (size != sizeof header) return die(size < 0 ? failure("header") : Error(EBADMSG, "a header expected"));
        header_ = header;
    }
    auto message = receive(*header_);
    // The header may come some time before the data.
    if (message.error() == EAGAIN) return;
    header_.reset();
    if (!message) return die(message.error());
    if (auto call = calls_.find(message->words_.call); call != calls_.end()) {
        call->second.emplace(*std::move(message));
    } else if (received) {
        received(*message);
    }
}

Result<DatagramMessage> DatagramPipe::send_sync(std::uint32_t command, sealane::Data data, sealane::Timeout timeout,
                                                sealane::Fds fds) {
    std::uint32_t number = ++last_call_;
    auto call = calls_.try_emplace(number).first;
    Result<DatagramMessage> result = Error(EPIPE, "the pipe is closed");
    auto end = Clock::now() + std::chrono::milliseconds(timeout.milliseconds());
    if (auto sent = send({command, number}, data, fds); !sent) {
        result = sent.error();
    } else {
        while (!call->second && socket_) {
            auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now());
            pollfd loop{socket_.get(), POLLIN, 0};
            if (left.count() <= 0 || ::poll(&loop, 1, static_cast<int>(left.count())) == 0) {
                result = Error(ETIMEDOUT, "no reply came in time");
                break;
            }
            dispatch();
        }
    }
    if (call->second) result = std::move(*call->second);
    calls_.erase(call);
    return result;
}
