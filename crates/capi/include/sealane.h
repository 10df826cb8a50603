/*
 * sealane: zero-copy IPC between Linux processes that do not trust each other.
 *
 * Generated from crates/capi/src; docs/c.md is the guide.
 *
 * Results. Functions return 0, or a number that they name, or a negative errno, for which sealane_last_error() has a
 * sentence. Any function can return -EFAULT (a null pointer) and -EINVAL; others are named where they matter.
 *
 * Timeouts. timeout_ms is -1 (for ever), 0 (look once) or milliseconds. A function without one does not block, unless it says
 * so.
 *
 * Ownership. A function that makes something writes it to the address that it is given, or null if it fails. A function that
 * frees takes the address of the variable and sets it to null, so that a second call does nothing. Descriptors that are given
 * stay the caller's; descriptors that are taken are close-on-exec, and the caller's.
 *
 * Pointers. Null is found and refused; a question that is answered by 0 or 1, or by a number of bytes, answers 0. Any other
 * pointer has to be what its type says, readable (or writable) for the length that stands beside it until the function returns,
 * and a handle must not be in use by another thread, unless its type says that it may.
 *
 * Forks. Freeing a handle in a forked child changes nothing for the parent; a daemon goes on with all it had. The process that first
 * uses its copy of a channel after the fork owns it: two that both use copies of one break its order. `sealane_channel_close`
 * ends it for all. For a child that shall have an end of its own, use `sealane_prepare`, or socketpair(2) and
 * `sealane_handshake_start` in each. What another thread was using when the process was forked stays -EBUSY in the fork.
 *
 * Signals. A signal does not end a wait. No function is for signal handlers. A thread is not cancelled (pthread_cancel(3))
 * within a function: to end a wait, close the channel.
 *
 * No function starts a thread, unwinds, or raises SIGPIPE. A fault in the library ends the program (SIGABRT).
 */

#ifndef SEALANE_H
#define SEALANE_H

#include <stddef.h>
#include <stdint.h>

/**
 * In a field of `sealane_options`, where 0 means the default: a true 0, or "no".
 */
#define SEALANE_NONE UINT32_MAX

/**
 * In `sealane_options.ring_capacity` and `max_peer_ring_capacity`: no ring, and so no payloads in this direction.
 */
#define SEALANE_NO_RING 1

/**
 * `sealane_options.wait`: spin for up to `max_spin_us`, then sleep. The default.
 */
#define SEALANE_WAIT_ADAPTIVE 1

/**
 * `sealane_options.wait`: sleep at once.
 */
#define SEALANE_WAIT_BLOCK 2

/**
 * `sealane_options.wait`: never sleep; occupies a CPU.
 */
#define SEALANE_WAIT_SPIN 3

/**
 * Enough room for `sealane_handshake_child_name`.
 */
#define SEALANE_NAME_SIZE 64

/**
 * In a result of `sealane_pipe_dispatch`: call `sealane_pipe_recv`. It has a message, the end, or, once in a while, -EAGAIN.
 */
#define SEALANE_PIPE_CAN_RECV 1

/**
 * In a result of `sealane_pipe_dispatch`: sending can be tried, so what returned -EAGAIN too.
 */
#define SEALANE_PIPE_CAN_SEND 2

/**
 * One end of a channel. One thread may send while another receives; a second thread in the same direction gets -EBUSY.
 */
typedef struct sealane_channel sealane_channel;

/**
 * A channel that is being established. One thread at a time may use it.
 */
typedef struct sealane_handshake sealane_handshake;

/**
 * A socket to which other processes connect. Several threads may accept at once.
 */
typedef struct sealane_listener sealane_listener;

/**
 * Memory in the ring, to be filled and sent. While it is open, the channel's sending functions return -EBUSY; receiving goes
 * on. It ends with its channel. One thread at a time may use it.
 */
typedef struct sealane_loan sealane_loan;

/**
 * A message that was received. Its payload holds room in the sender's ring until the message is freed, or its payload
 * released. It stays valid when its channel is freed. One thread at a time may use it.
 */
typedef struct sealane_message sealane_message;

/**
 * Message passing for event loops: a handshake and then a channel, with one descriptor, and a queue for what is sent before
 * the peer is there. Messages have any size up to the limits: small ones go in packets, large ones through the ring. One
 * thread at a time may use it. It takes six descriptors, where a channel alone takes three.
 */
typedef struct sealane_pipe sealane_pipe;

/**
 * Memory of a memfd (memfd_create(2)): written first, then immutable for every process and for ever. Once it is sealed, several
 * threads may read it.
 */
typedef struct sealane_sealed sealane_sealed;

/**
 * Settings of one end of a channel. A field that is 0 means the default; `SEALANE_NONE` means a true 0, or "no"; for rings
 * that is `SEALANE_NO_RING`.
 *
 * The structure may grow at its end. So its size comes first, as in clone3(2): fields that an older program does not know
 * have their defaults; fields that this library does not know have to be 0, else functions return -E2BIG.
 *
 *     struct sealane_options options = { .size = sizeof options, .ring_capacity = 1 << 20 };
 */
typedef struct sealane_options {
  /**
   * sizeof (struct sealane_options).
   */
  uint64_t size;
  /**
   * Bytes of this end's ring, rounded up to a page. Default: 4 MiB. See `sealane_ring_for`.
   */
  uint64_t ring_capacity;
  /**
   * Most bytes of the peer's ring. Default: 64 MiB, and 8 MiB for the clients of a listener.
   */
  uint64_t max_peer_ring_capacity;
  /**
   * Most control bytes of a message that this end receives. Default: 65,536; at most 212,928.
   */
  uint32_t max_control;
  /**
   * Most descriptors of a message that this end receives. Default: 64; at most 253 (unix(7), SCM_MAX_FD).
   */
  uint32_t max_fds;
  /**
   * Most requests without a reply, in either direction. Default: 1,024.
   */
  uint32_t max_requests;
  /**
   * Longest duration of a handshake, in milliseconds. Default: 5,000.
   */
  uint32_t handshake_timeout_ms;
  /**
   * A `SEALANE_WAIT_...`. How functions that wait do so.
   */
  uint32_t wait;
  /**
   * Longest spinning of `SEALANE_WAIT_ADAPTIVE`, in microseconds. Default: 50.
   */
  uint32_t max_spin_us;
  /**
   * 1: map all memory at once (the default); `SEALANE_NONE`: at its first use.
   */
  uint32_t prefault;
  /**
   * 1: make this end's ring of 2 MiB pages, and fail where none are reserved (memfd_create(2), MFD_HUGETLB); `SEALANE_NONE`: no
   * (the default).
   */
  uint32_t huge_pages;
  /**
   * 1: ask for a pidfd of the peer's process (Linux 6.5), for peers whose socket another process may hold;
   * `SEALANE_NONE`: no (the default).
   */
  uint32_t peer_pidfd;
  /**
   * Must be 0.
   */
  uint32_t reserved;
} sealane_options;

/**
 * The process at the other end, as it was at the handshake.
 */
typedef struct sealane_peer {
  /**
   * Process; 0 if it is in no pid namespace that we see (pid_namespaces(7)).
   */
  uint32_t pid;
  /**
   * User; 65534 if our user namespace has no name for it.
   */
  uint32_t uid;
  /**
   * Group; likewise.
   */
  uint32_t gid;
  /**
   * Version of the protocol.
   */
  uint32_t version;
} sealane_peer;

/**
 * How large a message may be in one direction.
 */
typedef struct sealane_limits {
  /**
   * Bytes of payload: half of the ring less 1,088.
   */
  size_t max_payload;
  /**
   * Control bytes.
   */
  size_t max_control;
  /**
   * Descriptors.
   */
  size_t max_fds;
  /**
   * Requests without a reply.
   */
  size_t max_requests;
} sealane_limits;

/**
 * What a callback of `sealane_message_blocks` is: `bytes` are a private copy, valid during the call. It returns 0 to go on.
 */
typedef int (*sealane_block)(void *context, const void *bytes, size_t len);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * A sentence about this thread's last failure, with its causes: what happened, what was expected and found. Empty if
 * nothing has failed.
 *
 * Valid until the next function of this header fails in the same thread, or the thread ends; never null. It can be called in
 * destructors of thread-local objects.
 */
const char *sealane_last_error(void);

/**
 * The version of the library, such as "0.1.0". Valid for ever.
 */
const char *sealane_version(void);

/**
 * The `ring_capacity` with which the sender of payloads of `payload` bytes is never stuck while the receiver keeps the last
 * `kept` of them: (kept + 2) * (payload + 1,088), rounded up to a page. 0 is enough for a receiver that frees each message
 * before it receives the next.
 */
size_t sealane_ring_for(size_t payload,
                        size_t kept);

/**
 * Connects to a listener at a path, or at an abstract name behind "@", and waits for the handshake, at most
 * `sealane_options.handshake_timeout_ms`. `options` may be null.
 *
 * -ECONNREFUSED: nobody listens there, or one side refused the other: the sentence says which limit. -ENOENT: no such path.
 * -ETIMEDOUT. -ECONNRESET: the peer went away in the middle.
 */
int sealane_connect(const struct sealane_options *options,
                    const char *path,
                    struct sealane_channel **channel);

/**
 * Begins to connect, without blocking: continue with `sealane_handshake_advance`. Failures as of `sealane_connect`; -EAGAIN if
 * the listener has too many clients waiting.
 */
int sealane_connect_start(const struct sealane_options *options,
                          const char *path,
                          struct sealane_handshake **handshake);

/**
 * Begins a handshake on a connected AF_UNIX SOCK_SEQPACKET socket, one end of a socketpair(2) for instance. The descriptor is
 * duplicated and stays the caller's: close it, or the peer cannot notice this end's close. Does not block.
 *
 * -EPROTOTYPE: another kind of descriptor.
 */
int sealane_handshake_start(const struct sealane_options *options,
                            int fd,
                            struct sealane_handshake **handshake);

/**
 * Prepares a channel to a child process, which is started later, in any way. Does not block.
 *
 * 1. `sealane_handshake_child_name` gives a string for the child's arguments.
 * 2. Start the child, with the descriptor of `sealane_handshake_child_fd`, which is close-on-exec: between fork and exec call
 *    fcntl(fd, F_SETFD, 0); with posix_spawn(3) use posix_spawn_file_actions_adddup2(fd, fd). The child calls
 *    `sealane_inherited_as` with the string.
 * 3. `sealane_handshake_child_started` closes this process's copy of the child's end.
 * 4. `sealane_handshake_finish`, or an event loop with `sealane_handshake_advance`.
 *
 * The handshake's time begins here.
 */
int sealane_prepare(const struct sealane_options *options,
                    struct sealane_handshake **handshake);

/**
 * The child's end of `sealane_prepare`. It stays the handshake's.
 */
int sealane_handshake_child_fd(struct sealane_handshake *handshake);

/**
 * Writes the string that names the child's end, such as "5:1234": the descriptor's number, and its cookie (socket(7),
 * SO_COOKIE). `SEALANE_NAME_SIZE` bytes are enough; fewer than needed are -ERANGE. Where a launcher gives the descriptor
 * another number, hand on that number alone instead.
 */
int sealane_handshake_child_name(struct sealane_handshake *handshake,
                                 char *name,
                                 size_t size);

/**
 * Closes this process's copy of the child's end. Call it when the child runs.
 *
 * A child of fork(2) without exec calls `sealane_inherited_as` instead, then `sealane_handshake_free`.
 */
int sealane_handshake_child_started(struct sealane_handshake *handshake);

/**
 * In the child: makes the channel that the parent prepared, and waits for its handshake. `name` is the string of
 * `sealane_handshake_child_name`, or a descriptor's number; null: the environment's SEALANE_FD, where a parent in Rust puts it. A
 * parent in C whose child is in Rust puts the string there too.
 *
 * -ENOENT: the name, or the descriptor, is none: it is close-on-exec, unless fcntl(fd, F_SETFD, 0) came before the exec.
 * -EALREADY: taken before.
 */
int sealane_inherited_as(const struct sealane_options *options,
                         const char *name,
                         struct sealane_channel **channel);

/**
 * The descriptor to wait for with poll(2), POLLIN, before the next `sealane_handshake_advance`. It stays the handshake's, and
 * is the same as `sealane_channel_recv_fd` later.
 */
int sealane_handshake_fd(struct sealane_handshake *handshake);

/**
 * Milliseconds until the handshake fails, rounded up: wait no longer for its descriptor, since a silent peer makes none
 * readable.
 */
int sealane_handshake_remaining_ms(struct sealane_handshake *handshake);

/**
 * Takes the steps that are possible at once; never blocks. 1 when `sealane_handshake_finish` will not block; 0: wait for the
 * descriptor, unless `sealane_handshake_needs_advance` says 1.
 *
 * -EAGAIN and -ETOOMANYREFS pass: call again after some milliseconds. -EBUSY: `sealane_handshake_child_started` first. Every
 * other failure is the handshake's end; free it.
 */
int sealane_handshake_advance(struct sealane_handshake *handshake);

/**
 * 1 if the last `sealane_handshake_advance` left more to do at once; else 0. It stops before a client is given anything,
 * so that a server can look at `sealane_handshake_peer` first.
 */
int sealane_handshake_needs_advance(struct sealane_handshake *handshake);

/**
 * The process at the other end. -EAGAIN while it is unknown. `version` is 0.
 */
int sealane_handshake_peer(struct sealane_handshake *handshake, struct sealane_peer *peer);

/**
 * Completes the handshake, waits until its deadline at most, and makes the channel. Frees the handshake, whatever the result,
 * and sets its variable to null; except for -EBUSY, if the child's end is still here, and -EFAULT.
 */
int sealane_handshake_finish(struct sealane_handshake **handshake,
                             struct sealane_channel **channel);

/**
 * Refuses the peer, and frees the handshake. Sets the variable to null. Does not block. The peer gets -ECONNREFUSED, or, if its
 * side of the handshake is complete already, -EPROTO from its channel.
 */
int sealane_handshake_refuse(struct sealane_handshake **handshake);

/**
 * Ends a handshake, and sets the variable to null; null is ignored.
 */
void sealane_handshake_free(struct sealane_handshake **handshake);

/**
 * Listens at a path (mode 0600; removed when the listener is freed by its owner), or at an abstract name behind "@". A path at
 * which nobody listens any more is taken over. `options` are those of each accepted channel, and may be null.
 *
 * -EADDRINUSE: somebody listens there, or another kind of file is there.
 */
int sealane_listen(const struct sealane_options *options,
                   const char *path,
                   struct sealane_listener **listener);

/**
 * Listens on a socket that listens already, for socket activation. It is duplicated and stays the caller's, and is never
 * removed; it becomes non-blocking for all who have it.
 *
 * -EINVAL: no listening AF_UNIX SOCK_SEQPACKET socket.
 */
int sealane_listen_on(const struct sealane_options *options,
                      int fd,
                      struct sealane_listener **listener);

/**
 * The descriptor to wait for with poll(2), POLLIN, before `sealane_accept_start`. It stays the listener's.
 */
int sealane_listener_fd(struct sealane_listener *listener);

/**
 * Waits for a client for `timeout_ms` at most (-1 for ever, 0 not at all), and then for its handshake, at most
 * `sealane_options.handshake_timeout_ms`. A client that fails is gone; the next call takes the next. A server of clients that it
 * does not trust uses `sealane_accept_start`: it gives nothing to a client before it has looked at who that is.
 *
 * -EAGAIN: no client. -ETIMEDOUT: no client, or a client that was too slow. -ECONNREFUSED, -ECONNRESET, -EMFILE ...
 */
int sealane_accept(struct sealane_listener *listener,
                   int timeout_ms,
                   struct sealane_channel **channel);

/**
 * Takes a client that has connected, without blocking: continue with `sealane_handshake_advance`. -EAGAIN: no client.
 */
int sealane_accept_start(struct sealane_listener *listener, struct sealane_handshake **handshake);

/**
 * Stops listening, and sets the variable to null; null is ignored. Accepted channels stay.
 */
void sealane_listener_free(struct sealane_listener **listener);

/**
 * Makes a connected pair of channels in this process. `options` may be null. Does not block.
 *
 * For a child process use `sealane_prepare`.
 */
int sealane_pair(const struct sealane_options *options, struct sealane_channel **a, struct sealane_channel **b);

/**
 * Closes and frees a channel, and sets the variable to null; null is ignored. What was sent before is still delivered
 * to the peer. Messages of the channel stay valid; an open loan ends, its memory with it. Free them too. No other thread may be
 * using the handle.
 */
void sealane_channel_free(struct sealane_channel **channel);

/**
 * Ends both directions at once, from any thread: functions that wait return -EPIPE. What was not received is dropped.
 */
int sealane_channel_close(struct sealane_channel *channel);

/**
 * The descriptor to wait for with poll(2), POLLIN, before `sealane_recv` with timeout 0. It stays the channel's.
 *
 * It becomes readable (level-triggered) once `sealane_recv` has returned -EAGAIN, or `sealane_channel_arm` 1, and something
 * has come since: a message, or the end of the peer. A fresh channel is armed.
 */
int sealane_channel_recv_fd(struct sealane_channel *channel);

/**
 * The descriptor to wait for with poll(2), POLLIN, after a sending function has returned -EAGAIN. It stays the channel's.
 *
 * It is for what was refused last. Something else that was sent since may have taken the announcement along: repeat every
 * function that was refused before you wait.
 */
int sealane_channel_send_fd(struct sealane_channel *channel);

/**
 * Asks, without taking a message: 1 if there is none, and `sealane_channel_recv_fd` will be readable when one comes; 0 if
 * there is something to receive now. For loops that take one message at each turn. Does not block.
 *
 * -EMFILE, -EPROTO and -EPIPE as of `sealane_recv`, which does not say them again.
 */
int sealane_channel_arm(struct sealane_channel *channel);

/**
 * How large a message may be: one that is sent, and one that is received. Either address may be null.
 */
int sealane_channel_limits(struct sealane_channel *channel,
                           struct sealane_limits *sent,
                           struct sealane_limits *received);

/**
 * The process at the other end.
 */
int sealane_channel_peer(struct sealane_channel *channel, struct sealane_peer *peer);

/**
 * A pidfd of the peer's process, if `sealane_options.peer_pidfd` asked for it and the kernel gave it; else -ENOENT. It stays
 * the channel's.
 */
int sealane_channel_pidfd(struct sealane_channel *channel);

/**
 * Sends a message without a payload: `len` control bytes and `fd_count` descriptors, which stay the caller's. Whole or not at
 * all. Waits while the socket is full, for `timeout_ms` at most: -1 for ever, 0 not at all.
 *
 * -EAGAIN: no room; `sealane_channel_send_fd` says when to try again. -ETIMEDOUT. -EPIPE: the peer is gone. -EMSGSIZE: more
 * bytes or descriptors than the peer accepts. -EBUSY: a loan is open, or another thread is sending. -ETOOMANYREFS: too many
 * descriptors of this user are in flight; try again after some milliseconds. -EBADF: a descriptor is not open.
 */
int sealane_send(struct sealane_channel *channel,
                 const void *data,
                 size_t len,
                 const int *fds,
                 size_t fd_count,
                 int timeout_ms);

/**
 * Sends a message that expects a reply; as `sealane_send`. The reply has this number: `sealane_message_in_reply_to`.
 * `number` may be null.
 *
 * -EDQUOT: too many requests are without a reply (`sealane_options.max_requests` of either side).
 */
int sealane_request(struct sealane_channel *channel,
                    const void *data,
                    size_t len,
                    const int *fds,
                    size_t fd_count,
                    int timeout_ms,
                    uint64_t *number);

/**
 * Replies to the request with this number (`sealane_message_expects_reply`); as `sealane_send`.
 *
 * -ENOENT: no such request waits for a reply.
 */
int sealane_reply(struct sealane_channel *channel,
                  uint64_t number,
                  const void *data,
                  size_t len,
                  const int *fds,
                  size_t fd_count,
                  int timeout_ms);

/**
 * Sends a request and waits for its reply: `timeout_ms` for both, -1 for ever; with 0 nothing is sent, and it has timed out.
 * Messages that come in between are kept, and delivered by the next `sealane_recv`. `sealane_channel_recv_fd` does not
 * announce them: receive until -EAGAIN, or call `sealane_channel_arm`, before you wait for it.
 *
 * -EMFILE: a message that came in between is lost, and the call given up. -ETIMEDOUT: a reply that comes later is dropped. -EPIPE as soon as the peer is gone. -ENOBUFS: more messages came in
 * between than a channel keeps (64): receive them first. Others as of `sealane_request`.
 */
int sealane_call(struct sealane_channel *channel,
                 const void *data,
                 size_t len,
                 const int *fds,
                 size_t fd_count,
                 int timeout_ms,
                 struct sealane_message **reply);

/**
 * The number that the next message of this channel will have, so that of a request: to be noted before it is sent, where another
 * thread receives. -EBUSY: a loan is open, or another thread is sending.
 */
int sealane_channel_next_number(struct sealane_channel *channel,
                                uint64_t *number);

/**
 * Waits for the reply to the request with this number (`sealane_request`, `sealane_loan_request`), for `timeout_ms` at most: -1
 * for ever, 0 not at all. Messages that come in between are kept, as by `sealane_call`.
 *
 * -ENOENT: no such request, or it was answered or forgotten. -EAGAIN: the reply has not come. -ETIMEDOUT: the request is forgotten.
 * -ENOBUFS: it is not; receive, then wait again. Others as of `sealane_call`.
 */
int sealane_wait_reply(struct sealane_channel *channel,
                       uint64_t number,
                       int timeout_ms,
                       struct sealane_message **reply);

/**
 * Forgets a request of this channel: its reply is dropped if it still comes. Does not block. Any thread may call it. A thread
 * that waits for the reply goes on waiting.
 *
 * -ENOENT: it was answered, or forgotten before.
 */
int sealane_cancel(struct sealane_channel *channel,
                   uint64_t number);

/**
 * Receives the next message; waits for `timeout_ms` at most: -1 for ever, 0 not at all. Free it with `sealane_message_free`.
 *
 * -EAGAIN: nothing is there; `sealane_channel_recv_fd` says when to try again. -ETIMEDOUT. -EPIPE: the peer is gone, and all
 * that it sent has been received. -EPROTO: the peer broke the protocol; the channel is closed. -EMFILE: a message is lost,
 * because this process is at its limit of open files; the channel works as before. -EBUSY: another thread is receiving.
 */
int sealane_recv(struct sealane_channel *channel,
                 int timeout_ms,
                 struct sealane_message **message);

/**
 * Lends `len` bytes of the ring, at most `sealane_limits.max_payload`: write them at `sealane_loan_data`, then send them.
 * Waits for room for `timeout_ms` at most: -1 for ever, 0 not at all. At most one loan of a channel is open at a time.
 *
 * -EAGAIN: no room; `sealane_channel_send_fd` says when to try again. -ETIMEDOUT. -EPIPE. -EMSGSIZE: longer than the ring can
 * hold. -EBUSY: a loan is open, or another thread is sending.
 */
int sealane_loan_open(struct sealane_channel *channel,
                      size_t len,
                      int timeout_ms,
                      struct sealane_loan **loan);

/**
 * The loan's memory, `sealane_loan_len` bytes; null for a null loan. Nobody else can write there. Valid until the loan is sent
 * or freed. Its first bytes are aligned to 64. What is not written holds old bytes of the ring.
 */
void *sealane_loan_data(struct sealane_loan *loan);

/**
 * Bytes of the loan; 0 for a null loan.
 */
size_t sealane_loan_len(struct sealane_loan *loan);

/**
 * Keeps the first `len` bytes of the loan; more than there are is -EINVAL.
 */
int sealane_loan_truncate(struct sealane_loan *loan, size_t len);

/**
 * Sends nothing: the loan's room is free again. Sets the variable to null; null is ignored.
 */
void sealane_loan_free(struct sealane_loan **loan);

/**
 * Sends the loan as a message, with `len` control bytes and `fd_count` descriptors, which stay the caller's. Whole or not at
 * all.
 *
 * On success the loan is freed, and the variable null. Every failure leaves it open: try again, or free it. Only descriptors,
 * or more than 1 KiB of control bytes, can make it wait. Failures as of `sealane_send`. Success means that the message is on
 * its way: a peer that goes away before it receives does not get it.
 */
int sealane_loan_send(struct sealane_loan **loan,
                      const void *data,
                      size_t len,
                      const int *fds,
                      size_t fd_count,
                      int timeout_ms);

/**
 * Sends the loan as a request; as `sealane_loan_send`. The reply has this number, and can be waited for: `sealane_wait_reply`.
 * `number` may be null.
 */
int sealane_loan_request(struct sealane_loan **loan,
                         const void *data,
                         size_t len,
                         const int *fds,
                         size_t fd_count,
                         int timeout_ms,
                         uint64_t *number);

/**
 * Sends the loan as the reply to the request with this number; as `sealane_loan_send`. -ENOENT: no such request waits for a
 * reply.
 */
int sealane_loan_reply(struct sealane_loan **loan,
                       uint64_t number,
                       const void *data,
                       size_t len,
                       const int *fds,
                       size_t fd_count,
                       int timeout_ms);

/**
 * Frees a message: releases its payload's room, closes descriptors that were not taken, and sets the variable to null; null
 * is ignored.
 */
void sealane_message_free(struct sealane_message **message);

/**
 * The control bytes, and their number in `len` (which may be null). They are private memory, hold still, and are aligned to 16;
 * valid until the message is freed. Null for a null message.
 */
const void *sealane_message_control(struct sealane_message *message,
                                    size_t *len);

/**
 * 1 if the message has a payload, which may have no bytes; else 0.
 */
int sealane_message_has_payload(struct sealane_message *message);

/**
 * Bytes of the payload; 0 where there is none.
 */
size_t sealane_message_payload_len(struct sealane_message *message);

/**
 * The bytes of a message that was sent by a `sealane_pipe_..._any`, whichever way it came, and their number in `len` (which may
 * be null): those of the payload if it has one, which are copied by the first call, else the control bytes. They are private
 * memory and hold still; valid until the message is freed. Null for a null message.
 *
 * The payload keeps its room in the ring, unless `sealane_message_release` follows; what was released before it was asked for is
 * not there any more.
 */
const void *sealane_message_bytes(struct sealane_message *message,
                                  size_t *len);

/**
 * Copies `len` bytes of the payload, from `offset` on. -EINVAL: the range reaches past the payload's end; nothing is copied.
 * -ENODATA: the message has no payload.
 */
int sealane_message_copy(struct sealane_message *message,
                         size_t offset,
                         void *destination,
                         size_t len);

/**
 * Calls `each` with all of the payload, block by block, in order: private copies of at most 8 KiB, which hold still. A result
 * other than 0 ends the reading and is returned; let it be positive, so that it is no failure of this function. `each` must not
 * use this message, and must return: neither longjmp(3) nor a C++ exception may leave it.
 *
 * -ENODATA: the message has no payload.
 */
int sealane_message_blocks(struct sealane_message *message,
                           sealane_block each,
                           void *context);

/**
 * Releases the payload's room before the message is freed. Control bytes and descriptors stay.
 */
int sealane_message_release(struct sealane_message *message);

/**
 * Descriptors of the message that were not taken yet.
 */
size_t sealane_message_fd_count(struct sealane_message *message);

/**
 * Takes the next `count` descriptors at most, in the order in which they were sent, and returns how many. They are
 * close-on-exec, and the caller's to close.
 */
int sealane_message_take_fds(struct sealane_message *message, int *fds, size_t count);

/**
 * 1 if the sender expects a reply, whose `number` is for `sealane_reply`; else 0. `number` may be null.
 */
int sealane_message_expects_reply(struct sealane_message *message, uint64_t *number);

/**
 * 1 if the message is the reply to our request of this `number` (`sealane_request`); else 0. `number` may be null.
 */
int sealane_message_in_reply_to(struct sealane_message *message, uint64_t *number);

/**
 * The message's number among all that its sender has sent on this channel.
 */
int sealane_message_number(struct sealane_message *message, uint64_t *number);

/**
 * Makes a pipe of a handshake, whichever function began it; a server first looks at `sealane_handshake_peer`, if it wants to.
 * Frees the handshake, and sets its variable to null, except for -EBUSY, `sealane_handshake_child_started` first, and -EFAULT.
 * Does not block.
 *
 * Create, start the child, send: `sealane_prepare`, start it, `sealane_handshake_child_started`, `sealane_pipe_new`,
 * `sealane_pipe_send_any`.
 */
int sealane_pipe_new(struct sealane_handshake **handshake,
                     struct sealane_pipe **pipe);

/**
 * Makes a pipe of a channel: in a child, after `sealane_inherited_as`. Takes the channel, and sets its variable to null,
 * unless it fails. Does not block. -EBUSY: a loan of the channel is open, or another thread is sending.
 */
int sealane_pipe_from_channel(struct sealane_channel **channel,
                              struct sealane_pipe **pipe);

/**
 * Closes and frees a pipe, and sets the variable to null; null is ignored. What was sent is still delivered; what is queued is
 * not. Messages of the pipe stay valid: free them too.
 */
void sealane_pipe_free(struct sealane_pipe **pipe);

/**
 * The only descriptor to wait for with poll(2), POLLIN: readable (level-triggered) when `sealane_pipe_dispatch` has something
 * to do or to say. It counts the handshake's time too. It stays the pipe's, and the same for all of its life. After the end,
 * and after a handshake that failed, it stays readable: take it out of the loop.
 *
 * It sees that the peer is gone by the peer's socket. Where a copy of that may outlive the peer, wait for `sealane_channel_pidfd`
 * too: functions that wait see both.
 */
int sealane_pipe_fd(struct sealane_pipe *pipe);

/**
 * Does what is possible at once: goes on with the handshake, sends what is queued. Never blocks. Returns a set of
 * `SEALANE_PIPE_CAN_RECV` and `SEALANE_PIPE_CAN_SEND`, or 0.
 *
 * Call it whenever `sealane_pipe_fd` is readable. A failure of the handshake is returned by this and every later call: -ECONNREFUSED,
 * -ECONNRESET, and -ECONNABORTED where the peer did not complete it in time. -EMSGSIZE: a queued message is larger than the peer accepts; it was dropped, and
 * the pipe works as before. Only this function says so, and `sealane_pipe_recv` where it would return -EAGAIN. The end of a
 * connected pipe is `sealane_pipe_recv`'s to say; what was queued is lost then.
 */
int sealane_pipe_dispatch(struct sealane_pipe *pipe);

/**
 * The pipe's channel, for its limits, its peer, and loans; null while there is none. It stays the pipe's: do not free it, and
 * receive through the pipe, or its descriptor does not know.
 *
 * A loan that is refused with -EAGAIN is waited for with `sealane_channel_send_fd`; while messages are queued, which the sentence
 * says, with SEALANE_PIPE_CAN_SEND. When a loan was sent while the pipe waits for room, call `sealane_pipe_dispatch`: it may have
 * taken the announcement along.
 */
struct sealane_channel *sealane_pipe_channel(struct sealane_pipe *pipe);

/**
 * Sends a message of any size: `len` bytes and `fd_count` descriptors, which stay the caller's. Whole or not at all. Never
 * blocks. The receiver reads it by `sealane_message_bytes`. Goes in a packet below 4 KiB, with descriptors up to 16 KiB, and
 * else through the ring.
 *
 * Before the pipe is connected, messages are queued, with copies of their descriptors: at most 64, with 1 MiB and 253
 * descriptors in all. -EAGAIN: no room, or messages are queued still; after SEALANE_PIPE_CAN_SEND try again. -EMSGSIZE: more than
 * the peer accepts, or than this end's ring can hold. Others as of `sealane_send`.
 */
int sealane_pipe_send_any(struct sealane_pipe *pipe,
                          const void *data,
                          size_t len,
                          const int *fds,
                          size_t fd_count);

/**
 * Sends a message of any size that expects a reply, which has this number: `sealane_message_in_reply_to`. `number` may be null.
 * It is sent like `sealane_pipe_send_any`, but never queued: -EAGAIN before the pipe is connected.
 *
 * -EDQUOT: too many requests are without a reply (`sealane_options.max_requests` of either side).
 */
int sealane_pipe_request_any(struct sealane_pipe *pipe,
                             const void *data,
                             size_t len,
                             const int *fds,
                             size_t fd_count,
                             uint64_t *number);

/**
 * Replies to the request with this number (`sealane_message_expects_reply`); as `sealane_pipe_send_any`.
 *
 * -ENOENT: no such request waits for a reply.
 */
int sealane_pipe_reply_any(struct sealane_pipe *pipe,
                           uint64_t number,
                           const void *data,
                           size_t len,
                           const int *fds,
                           size_t fd_count);

/**
 * Sends a request of any size and waits for its reply: `timeout_ms` for both, and for the handshake and what is queued before
 * it, -1 for ever; with 0 nothing is sent, and it has timed out. It watches this pipe only. A peer that itself waits for room,
 * for messages that nobody receives here meanwhile, answers to no call. Messages that come in between are kept; the pipe's
 * descriptor is readable afterwards.
 *
 * Failures as of `sealane_call`, and those of the handshake.
 */
int sealane_pipe_call_any(struct sealane_pipe *pipe,
                          const void *data,
                          size_t len,
                          const int *fds,
                          size_t fd_count,
                          int timeout_ms,
                          struct sealane_message **reply);

/**
 * Waits for the reply to the request with this number (`sealane_pipe_request_any`, `sealane_loan_request` on the pipe's channel),
 * as `sealane_wait_reply`. The pipe's descriptor is readable afterwards.
 */
int sealane_pipe_wait_reply(struct sealane_pipe *pipe,
                            uint64_t number,
                            int timeout_ms,
                            struct sealane_message **reply);

/**
 * Receives the next message, as `sealane_recv`; before the pipe is connected it waits, or returns -EAGAIN. With timeout 0 the
 * pipe's descriptor says afterwards whether there is another message, so that a loop can take one at each turn, even if it is
 * entered again from within.
 *
 * It also goes through the handshake and sends what is queued. So a loop that waits for no room can call it alone, without
 * `sealane_pipe_dispatch`, which saves two system calls a message.
 *
 * Failures as of `sealane_recv`, and those of the handshake. -EMSGSIZE instead of -EAGAIN: a queued message was dropped.
 */
int sealane_pipe_recv(struct sealane_pipe *pipe,
                      int timeout_ms,
                      struct sealane_message **message);

/**
 * Makes a buffer of `len` bytes, page-aligned, all 0. All memory is allocated at once.
 */
int sealane_sealed_new(size_t len, struct sealane_sealed **sealed);

/**
 * The memory to write, until `sealane_sealed_seal`; null from then on.
 */
void *sealane_sealed_data_mut(struct sealane_sealed *sealed);

/**
 * Makes the buffer immutable (fcntl(2), F_SEAL_WRITE). Pointers of `sealane_sealed_data_mut` end here. -EINVAL: sealed before. If
 * it fails for another reason, of which -EMFILE and -ENOMEM are the likely ones, the contents are gone.
 */
int sealane_sealed_seal(struct sealane_sealed *sealed);

/**
 * Verifies and maps a received descriptor: a memfd of at most `max` bytes that is sealed. The descriptor is duplicated and
 * stays the caller's. Does not block.
 *
 * -EBADMSG: it is not what it should be; the sentence says how.
 */
int sealane_sealed_open(int fd,
                        uint64_t max,
                        struct sealane_sealed **sealed);

/**
 * The bytes, `sealane_sealed_len` of them; null for a null buffer. Valid until the buffer is freed, or sealed.
 */
const void *sealane_sealed_data(struct sealane_sealed *sealed);

/**
 * Bytes of the buffer; 0 for a null buffer.
 */
size_t sealane_sealed_len(struct sealane_sealed *sealed);

/**
 * The descriptor to send. It stays the buffer's. -EINVAL: not sealed yet.
 */
int sealane_sealed_fd(struct sealane_sealed *sealed);

/**
 * Unmaps and closes a buffer, and sets the variable to null; null is ignored.
 */
void sealane_sealed_free(struct sealane_sealed **sealed);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SEALANE_H */
