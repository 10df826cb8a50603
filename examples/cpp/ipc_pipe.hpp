// Message passing between a host and its isolated worker, for an event loop: commands with bytes and descriptors.
#ifndef IPC_PIPE_HPP
#define IPC_PIPE_HPP

#include <cstring>
#include <functional>
#include <optional>
#include <sealane.hpp>
#include <sys/types.h>

/// A received message: a command, bytes and descriptors.
class IpcMessage {
public:
    /// Refuses a message that is too short for a command.
    static sealane::Result<IpcMessage> of(sealane::Message message);

    std::uint32_t command() const { return command_; }

    /// A private copy, valid for as long as this object. A message that was lent has none.
    sealane::Bytes data() const { return bytes_of(message_).subspan(sizeof command_); }

    /// The data as a structure, if they have its size.
    template <typename T> std::optional<T> as() const {
        std::optional<T> value;
        if (data().size() == sizeof(T)) std::memcpy(&value.emplace(), data().data(), sizeof(T));
        return value;
    }

    /// Whether the data were written by IpcPipe::lend, and are to be read by blocks.
    bool is_lent() const { return message_.has_payload() && !message_.control().empty(); }

    /// Calls `each` with the data of a message that was lent: private copies of at most 8 KiB.
    template <typename Each> sealane::Result<void> blocks(Each &&each) const { return message_.blocks(each); }

    std::vector<sealane::Fd> take_fds() { return message_.take_fds(); }

    /// The number for IpcPipe::reply, if the sender waits for a reply.
    std::optional<std::uint64_t> expects_reply() const { return message_.expects_reply(); }

private:
    IpcMessage(sealane::Message message, std::uint32_t command) : message_(std::move(message)), command_(command) {}

    // The command comes first, or in the control bytes of a loan.
    static sealane::Bytes bytes_of(const sealane::Message &message) {
        sealane::Bytes control = message.control();
        return control.empty() ? message.bytes() : control;
    }

    sealane::Message message_;
    std::uint32_t command_;
};

/// One end of the pipe, for one thread.
///
/// After start or inherit an event loop waits for fd(), POLLIN, and calls dispatch(), which calls the functions that are set
/// below. These may send, call, stop and start, but not destroy the pipe.
class IpcPipe {
public:
    IpcPipe() = default;
    IpcPipe(const IpcPipe &) = delete;
    IpcPipe &operator=(const IpcPipe &) = delete;
    ~IpcPipe() { stop(); }

    /// In the host: starts a worker, which gets the name of its end as its argument. Messages can be sent at once. Can be called
    /// again when the worker died.
    sealane::Result<void> start(const char *program, const sealane::Options &options = {});

    /// In the worker: takes the end with this name. Waits for the host.
    sealane::Result<void> inherit(const char *name, const sealane::Options &options = {});

    /// Closes the pipe, and waits for the worker's end: a second at most, then the worker is killed.
    void stop();

    bool is_connected() const { return static_cast<bool>(pipe_); }

    /// -1, which poll(2) ignores, if there is no pipe.
    int fd() const { return pipe_ ? pipe_.fd() : -1; }

    /// Delivers one message at most, so that other descriptors of the loop get their turn.
    void dispatch();

    /// Sends whole or not at all, and never blocks. EAGAIN: no room; `can_send` is called when there is some.
    sealane::Result<void> send_async(std::uint32_t command, sealane::Data data, sealane::Fds fds = {});

    /// Lends memory of the ring, so that large data need no copy: fill it, then call its send with a command for control bytes.
    /// EAGAIN: no room, or no connection yet.
    sealane::Result<sealane::Loan> lend(std::size_t size);

    /// Sends, and waits for the reply. Messages that come in between are left to the loop. EPIPE as soon as the other end dies.
    sealane::Result<IpcMessage> send_sync(std::uint32_t command, sealane::Data data, sealane::Timeout timeout,
                                          sealane::Fds fds = {});

    /// Replies to a message, which expects it. Failures of send_async.
    sealane::Result<void> reply(const IpcMessage &request, sealane::Data data, sealane::Fds fds = {});

    std::function<void(IpcMessage &)> received;
    std::function<void()> can_send;
    /// A message was lost, the pipe works: one that was queued was too large, or there was no descriptor left.
    std::function<void(const sealane::Error &)> lost;
    /// The other end is gone, or broke the rules. The pipe is closed by now, and the worker is no more.
    std::function<void(const sealane::Error &)> died;

private:
    sealane::Data with_command(std::uint32_t command, sealane::Data data);
    sealane::Result<void> remember_if_full(sealane::Result<void> sent);
    void fail(const sealane::Error &error);
    void die(const sealane::Error &error);
    void reap(int patience_ms);

    sealane::Pipe pipe_;
    pid_t worker_ = -1;
    bool is_full_ = false;
    std::vector<std::byte> buffer_;
};

#endif
