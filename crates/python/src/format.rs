//! Formats of buffers (PEP 3118): whether the elements are plain values, or addresses of this process.

/// Whether elements of this format have a pointer in them, at any depth. The peer would read it, or write it.
pub(crate) fn has_pointers(format: &[u8]) -> bool {
    let mut is_name = false;
    for (at, code) in format.iter().enumerate() {
        match code {
            // The names of fields stand between colons.
            b':' => is_name = !is_name,
            _ if is_name => {}
            // An object, `void *`, a pointer to a type, a function and `char *`, the last three as ctypes has them.
            b'O' | b'P' | b'&' | b'X' | b'z' => return true,
            // With the letter of a float it is a complex number, alone the `wchar_t *` of ctypes.
            b'Z' if !matches!(format.get(at + 1), Some(b'f' | b'd' | b'g')) => return true,
            _ => {}
        }
    }
    false
}
