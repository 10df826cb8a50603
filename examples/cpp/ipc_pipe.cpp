#include "ipc_pipe.hpp"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

using sealane::Error;
using sealane::Result;

extern char **environ;

Result<IpcMessage> IpcMessage::of(sealane::Message message) {
    std::uint32_t command = 0;
    sealane::Bytes bytes = bytes_of(message);
    if (bytes.size() < sizeof command) return Error(EBADMSG, "a command expected, a shorter message found");
    std::memcpy(&command, bytes.data(), sizeof command);
    return IpcMessage(std::move(message), command);
}

Result<void> IpcPipe::start(const char *program, const sealane::Options &options) {
    stop();
    auto handshake = sealane::Handshake::prepare(options);
    if (!handshake) return handshake.error();
    auto name = handshake->child_name();
    auto fd = handshake->child_fd();
    if (!name || !fd) return name ? fd.error() : name.error();

    // The descriptor onto itself: so it is inherited. All others are close-on-exec.
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, *fd, *fd);
    char *arguments[] = {const_cast<char *>(program), name->data(), nullptr};
    int failure = posix_spawn(&worker_, program, &actions, nullptr, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (failure != 0) {
        worker_ = -1;
        return Error(failure, std::string("the worker could not be started: ") + program);
    }

    if (auto started = handshake->child_started(); !started) return started.error();
    auto pipe = sealane::Pipe::from(std::move(*handshake));
    if (!pipe) return pipe.error();
    pipe_ = *std::move(pipe);
    return {};
}

Result<void> IpcPipe::inherit(const char *name, const sealane::Options &options) {
    auto channel = sealane::Channel::inherited_as(name, options);
    if (!channel) return channel.error();
    auto pipe = sealane::Pipe::from(std::move(*channel));
    if (!pipe) return pipe.error();
    pipe_ = *std::move(pipe);
    return {};
}

void IpcPipe::dispatch() {
    if (is_full_) {
        auto ready = pipe_.dispatch();
        if (!ready) return fail(ready.error());
        is_full_ = !ready->can_send;
        if (ready->can_send && can_send) can_send();
        // The callback may have stopped the pipe.
        if (!pipe_) return;
    }
    // This alone also goes through the handshake, and saves two system calls.
    auto message = pipe_.recv(sealane::no_wait);
    if (!message) return fail(message.error());
    auto checked = IpcMessage::of(*std::move(message));
    if (!checked) return die(checked.error());
    if (received) received(*checked);
}

void IpcPipe::fail(const Error &error) {
    if (error == EAGAIN) return;
    if (error != EMSGSIZE && error != EMFILE) return die(error);
    if (lost) lost(error);
}

Result<void> IpcPipe::send_async(std::uint32_t command, sealane::Data data, sealane::Fds fds) {
    return remember_if_full(pipe_.send(with_command(command, data), fds));
}

Result<sealane::Loan> IpcPipe::lend(std::size_t size) {
    if (sealane::ChannelRef channel = pipe_.channel()) return channel.loan(size, sealane::no_wait);
    return Error(EAGAIN, "the pipe is not connected yet");
}

Result<IpcMessage> IpcPipe::send_sync(std::uint32_t command, sealane::Data data, sealane::Timeout timeout, sealane::Fds fds) {
    auto reply = pipe_.call(with_command(command, data), timeout, fds);
    if (!reply) return reply.error();
    return IpcMessage::of(*std::move(reply));
}

Result<void> IpcPipe::reply(const IpcMessage &request, sealane::Data data, sealane::Fds fds) {
    auto number = request.expects_reply();
    if (!number) return Error(EINVAL, "a message that expects a reply expected");
    return remember_if_full(pipe_.reply(*number, with_command(request.command(), data), fds));
}

sealane::Data IpcPipe::with_command(std::uint32_t command, sealane::Data data) {
    // The copy begins where the source does in a line of the cache. Some AMD processors copy 64 KiB 16 times slower to an
    // address that lies a few bytes further in its page than the source, as neighbours on the heap do.
    static constexpr std::size_t line = 64;
    buffer_.resize(line + sizeof command + data.size());
    auto address_of = [](const void *pointer) { return reinterpret_cast<std::uintptr_t>(pointer); };
    std::byte *message = buffer_.data() + (address_of(data.data()) - address_of(buffer_.data()) - sizeof command) % line;
    std::memcpy(message, &command, sizeof command);
    if (data.size() > 0) std::memcpy(message + sizeof command, data.data(), data.size());
    return sealane::Bytes(message, sizeof command + data.size());
}

Result<void> IpcPipe::remember_if_full(Result<void> sent) {
    if (sent.error() == EAGAIN) is_full_ = true;
    return sent;
}

void IpcPipe::stop() {
    pipe_.reset();
    is_full_ = false;
    reap(1000);
}

void IpcPipe::die(const Error &error) {
    pipe_.reset();
    is_full_ = false;
    reap(0);
    if (died) died(error);
}

void IpcPipe::reap(int patience_ms) {
    if (worker_ < 0) return;
    // A worker ends when its pipe does. One that is trusted less than that is killed.
    sealane::Fd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, worker_, 0)));
    pollfd end{pidfd.get(), POLLIN, 0};
    if (!pidfd || ::poll(&end, 1, patience_ms) != 1) ::kill(worker_, SIGKILL);
    while (::waitpid(worker_, nullptr, 0) < 0 && errno == EINTR) {
    }
    worker_ = -1;
}
