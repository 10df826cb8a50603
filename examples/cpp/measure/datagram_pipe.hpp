// A model of message passing over datagrams, for the comparison in docs/c.md.
//
// It follows a description of libcamera's IPC, and has no code of it: a pair of datagram sockets, two datagrams a message, one
// message each time poll(2) returns, a call that sends and runs a loop of its own.
#ifndef DATAGRAM_PIPE_HPP
#define DATAGRAM_PIPE_HPP

#include <functional>
#include <map>
#include <optional>
#include <sealane.hpp>
#include <sys/types.h>

/// A received message: a command, bytes and descriptors.
class DatagramMessage {
public:
    std::uint32_t command() const { return words_.command; }
    sealane::Bytes data() const { return sealane::Bytes(bytes_).subspan(sizeof words_); }
    std::vector<sealane::Fd> take_fds() { return std::move(fds_); }

private:
    friend class DatagramPipe;

    /// At the front of the data.
    struct Words {
        std::uint32_t command;
        /// The number of a call, and of its reply; 0 for other messages.
        std::uint32_t call;
    };

    Words words_{};
    std::vector<std::byte> bytes_;
    std::vector<sealane::Fd> fds_;
};

/// One end of the pipe, with the functions of IpcPipe.
class DatagramPipe {
public:
    DatagramPipe() = default;
    DatagramPipe(const DatagramPipe &) = delete;
    DatagramPipe &operator=(const DatagramPipe &) = delete;
    ~DatagramPipe() { stop(); }

    /// Starts a worker with the arguments "--datagrams" and the number of its descriptor. All others but stderr are closed.
    sealane::Result<void> start(const char *program);

    sealane::Result<void> inherit(const char *number);

    /// Kills the worker, which cannot notice that its host is gone.
    void stop();

    bool is_connected() const { return static_cast<bool>(socket_); }
    int fd() const { return socket_.get(); }
    void dispatch();

    /// EAGAIN: no room for one of the two datagrams. If the first one is sent by then, the pipe is of no use any more.
    sealane::Result<void> send_async(std::uint32_t command, sealane::Data data, sealane::Fds fds = {}) {
        return send({command, 0}, data, fds);
    }

    /// Messages that come in between are delivered. A worker that dies is not noticed.
    sealane::Result<DatagramMessage> send_sync(std::uint32_t command, sealane::Data data, sealane::Timeout timeout,
                                               sealane::Fds fds = {});

    sealane::Result<void> reply(const DatagramMessage &request, sealane::Data data, sealane::Fds fds = {}) {
        return send(request.words_, data, fds);
    }

    std::function<void(DatagramMessage &)> received;
    std::function<void(const sealane::Error &)> died;

private:
    /// The first datagram of a message.
    struct Header {
        std::uint32_t size;
        std::uint32_t fd_count;
    };

    sealane::Result<void> send(DatagramMessage::Words words, sealane::Data data, sealane::Fds fds);
    sealane::Result<DatagramMessage> receive(Header header);
    void die(const sealane::Error &error);

    sealane::Fd socket_;
    pid_t worker_ = -1;
    std::optional<Header> header_;
    /// The open calls, and their replies.
    std::map<std::uint32_t, std::optional<DatagramMessage>> calls_;
    std::uint32_t last_call_ = 0;
};

#endif
