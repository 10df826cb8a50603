// A camera pipeline: starts its algorithm in a process of its own, sends it each frame, and starts it anew when it dies.
#include "ipc_pipe.hpp"
#include "statistics.hpp"

#include <cstdio>
#include <cstdlib>
#include <poll.h>
#include <sys/mman.h>

using namespace std::chrono_literals;

static void check(const sealane::Result<void> &result, const char *what) {
    if (result) return;
    std::fprintf(stderr, "%s: %s\n", what, result.error().message());
    std::exit(1);
}

// The loop of a larger program, which has other descriptors too.
template <typename Condition> static void run_while(IpcPipe &pipe, Condition condition) {
    while (condition()) {
        pollfd loop{pipe.fd(), POLLIN, 0};
        if (::poll(&loop, 1, 10000) <= 0) {
            std::fprintf(stderr, "the worker does not answer\n");
            std::exit(1);
        }
        pipe.dispatch();
    }
}

static void print_name(IpcPipe &pipe) {
    auto name = pipe.send_sync(configure, "640x480", 5s);
    check(name ? sealane::Result<void>() : name.error(), "configure");
    std::printf("worker: %.*s\n", static_cast<int>(name->data().size()), reinterpret_cast<const char *>(name->data().data()));
}

int main(int argc, char **argv) {
    const char *program = argc > 1 ? argv[1] : "./worker";
    IpcPipe pipe;
    sealane::Fd buffer(memfd_create("frame", MFD_CLOEXEC));
    Frame frame{};
    bool is_dead = false;

    auto send_frame = [&](std::uint64_t exposure_us) {
        frame.id++;
        frame.exposure_us = exposure_us;
        // Brightness grows with the exposure.
        std::uint32_t i = 0;
        for (std::uint32_t &zone : frame.zones) zone = static_cast<std::uint32_t>(exposure_us / 80) + i++ % 3;
        check(pipe.send_async(process, sealane::bytes_of(frame), {buffer.get()}), "frame");
    };
    pipe.received = [&](IpcMessage &message) {
        auto answer = message.as<Controls>();
        if (message.command() != controls || !answer || answer->id != frame.id) {
            std::fprintf(stderr, "controls of the last frame expected\n");
            std::exit(1);
        }
        if (frame.id < 60) return send_frame(answer->exposure_us);
        std::printf("after 60 frames: exposure %llu us\n", static_cast<unsigned long long>(answer->exposure_us));
        frame.id = 0;
    };
    pipe.died = [&](const sealane::Error &error) {
        std::printf("worker died: %s\n", error.message());
        is_dead = true;
    };

    check(pipe.start(program), "start");
    // The first frame is queued until the worker is there.
    send_frame(1000);
    print_name(pipe);
    run_while(pipe, [&] { return frame.id != 0; });

    // A call ends as soon as the worker does. The loop hears of it too.
    auto reply = pipe.send_sync(crash, {}, 60s);
    std::printf("call: %s\n", reply.error().message());
    run_while(pipe, [&] { return !is_dead; });

    check(pipe.start(program), "start");
    print_name(pipe);
    pipe.stop();
    return pipe.is_connected();
}
