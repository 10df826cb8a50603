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
 * Pointers. Null is found and refused. Any other pointer has to be what its type says, readable (or writable) for the length
 * that stands beside it until the function returns, and a handle must not be in use by another thread, unless its type says
 * that it may.
 *
 * No function starts a thread, unwinds, or raises SIGPIPE.
 */
