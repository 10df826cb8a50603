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
