//! Copies from memory that another process may be changing.
//!
//! Rust has no load that is defined while another process writes. Here the compiler sees either an instruction in inline
//! assembly (x86-64), or a relaxed atomic load (elsewhere): each happens once, and nothing is assumed about its result.

#[cfg(not(target_arch = "x86_64"))]
pub(super) use portable::copy_volatile;
#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::copy_volatile;

/// Loads in inline assembly, which the compiler cannot see into. No block is `pure`, so that none is repeated or moved.
#[cfg(target_arch = "x86_64")]
#[expect(clippy::inline_always, reason = "a load must become one instruction in its caller")]
mod x86_64 {
    use std::arch::{asm, x86_64::__m128i};

    /// Bytes from which on the processor's string move is the fastest.
    const STRING_MOVE: usize = 256;

    /// Copies `len` bytes. A constant `len` of a register's size becomes a plain load.
    ///
    /// # Safety
    /// `from` must be readable for `len` bytes, and `to` private memory that is writable for as many.
    #[inline(always)]
    pub(in super::super) unsafe fn copy_volatile(from: *const u8, to: *mut u8, len: usize) {
        match len {
            // SAFETY: `load1` demands what the caller promises, for 1 byte.
            1 => unsafe { load1(from, to) },
            // SAFETY: `load2` demands what the caller promises, for 2 bytes.
            2 => unsafe { load2(from, to) },
            // SAFETY: `load4` demands what the caller promises, for 4 bytes.
            4 => unsafe { load4(from, to) },
            // SAFETY: `load8` demands what the caller promises, for 8 bytes.
            8 => unsafe { load8(from, to) },
            // SAFETY: `load16` demands what the caller promises, for 16 bytes.
            16 => unsafe { load16(from, to) },
            // SAFETY: `load64` demands what the caller promises, for 64 bytes.
            64 => unsafe { load64(from, to) },
            // SAFETY: `copy_any` demands what the caller promises.
            _ => unsafe { copy_any(from, to, len) },
        }
    }

    #[cfg(not(target_feature = "avx"))]
    macro_rules! mov128 {
        () => {
            "movdqu"
        };
    }
    // The older form costs some 70 cycles where it meets code that uses AVX.
    #[cfg(target_feature = "avx")]
    macro_rules! mov128 {
        () => {
            "vmovdqu"
        };
    }

    macro_rules! load {
        ($name:ident, $type:ty, $class:ident, $load:expr) => {
            /// # Safety
            /// That of [`copy_volatile`], for the bytes of one register.
            #[inline(always)]
            unsafe fn $name(from: *const u8, to: *mut u8) {
                let value: $type;
                // SAFETY: `asm!` must do what its operands and options say. The instruction reads the register's size at
                // `from`, which the caller keeps readable, and writes `value`. It changes no memory (`readonly`), no stack
                // and no flags; x86-64 lets it be unaligned.
                unsafe {
                    asm!($load, lateout($class) value, in(reg) from,
                        options(readonly, nostack, preserves_flags));
                }
                // SAFETY: `write_unaligned` demands writable memory of the type's size, aligned or not: the caller's `to`.
                unsafe { to.cast::<$type>().write_unaligned(value) };
            }
        };
    }
    load!(load1, u8, reg_byte, "mov {0}, byte ptr [{1}]");
    load!(load2, u16, reg, "mov {0:x}, word ptr [{1}]");
    load!(load4, u32, reg, "mov {0:e}, dword ptr [{1}]");
    load!(load8, u64, reg, "mov {0}, qword ptr [{1}]");
    load!(load16, __m128i, xmm_reg, concat!(mov128!(), " {0}, xmmword ptr [{1}]"));

    /// # Safety
    /// That of [`copy_volatile`], for 64 bytes.
    #[inline(always)]
    unsafe fn load64(from: *const u8, to: *mut u8) {
        let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
        // SAFETY: `asm!` must do what its operands and options say. The four instructions read 64 bytes at `from`, which the
        // caller keeps readable, and write four registers. Those are of another class than the one of `from`, which `lateout`
        // therefore cannot overwrite. They change no memory (`readonly`), no stack and no flags, and may be unaligned.
        unsafe {
            asm!(
                concat!(mov128!(), " {0}, xmmword ptr [{4}]"),
                concat!(mov128!(), " {1}, xmmword ptr [{4} + 16]"),
                concat!(mov128!(), " {2}, xmmword ptr [{4} + 32]"),
                concat!(mov128!(), " {3}, xmmword ptr [{4} + 48]"),
                lateout(xmm_reg) a, lateout(xmm_reg) b, lateout(xmm_reg) c, lateout(xmm_reg) d, in(reg) from,
                options(readonly, nostack, preserves_flags)
            );
        }
        // SAFETY: `write_unaligned` demands 64 bytes of writable memory, aligned or not: the caller's `to`.
        unsafe { to.cast::<[__m128i; 4]>().write_unaligned([a, b, c, d]) };
    }

    /// # Safety
    /// That of [`copy_volatile`].
    unsafe fn copy_any(from: *const u8, to: *mut u8, len: usize) {
        if len >= STRING_MOVE {
            // SAFETY: `asm!` must do what its operands and options say. `rep movsb` reads `rcx` bytes at `rsi` and writes as
            // many at `rdi`: the caller's two ranges, which do not overlap, as `to` is private. The three registers are
            // declared as changed. The direction flag is clear, as the System V ABI demands at every call, and no flag
            // changes.
            unsafe {
                asm!("rep movsb", inout("rcx") len => _, inout("rsi") from => _, inout("rdi") to => _,
                    options(nostack, preserves_flags));
            }
            return;
        }
        let mut done = 0_usize;
        macro_rules! steps {
            ($load:ident, $size:literal) => {
                while len.wrapping_sub(done) >= $size {
                    // SAFETY: the load demands `$size` bytes in both ranges from `done` on: `done + $size <= len`.
                    unsafe { $load(from.wrapping_add(done), to.wrapping_add(done)) };
                    done = done.wrapping_add($size);
                }
            };
        }
        steps!(load16, 16);
        steps!(load8, 8);
        steps!(load4, 4);
        steps!(load2, 2);
        steps!(load1, 1);
    }
}

/// Relaxed atomic loads, word by word where the source is aligned. The only copy on other processors than x86-64, where it is
/// the oracle of the test.
#[cfg(any(not(target_arch = "x86_64"), test))]
mod portable {
    use std::{
        mem::size_of,
        sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    };

    const WORD: usize = size_of::<u64>();

    /// # Safety
    /// `from` must be readable for `len` bytes, and `to` private memory that is writable for as many.
    #[inline]
    pub(in super::super) unsafe fn copy_volatile(from: *const u8, to: *mut u8, len: usize) {
        let mut done = 0_usize;
        while done < len {
            let (from, to) = (from.wrapping_add(done), to.wrapping_add(done));
            if from.addr().is_multiple_of(WORD) && len.wrapping_sub(done) >= WORD {
                // SAFETY: `AtomicU64::from_ptr` demands an aligned pointer, valid for 8 bytes, and no conflicting non-atomic
                // access: the condition above checked the alignment, and `done + 8 <= len`; this process does not write there
                // but atomically. Relaxed loads of up to 8 bytes are allowed on read-only memory (`std::sync::atomic`).
                let word = unsafe { AtomicU64::from_ptr(from.cast_mut().cast()) }.load(Relaxed);
                // SAFETY: `write_unaligned` demands 8 bytes of writable memory, aligned or not: the caller's `to`.
                unsafe { to.cast::<u64>().write_unaligned(word) };
                done = done.wrapping_add(WORD);
            } else {
                // SAFETY: `AtomicU8::from_ptr` demands what `AtomicU64::from_ptr` does, for one byte: `done < len`.
                let byte = unsafe { AtomicU8::from_ptr(from.cast_mut()) }.load(Relaxed);
                // SAFETY: `write` demands one byte of writable memory: the caller's `to`.
                unsafe { to.write(byte) };
                done = done.wrapping_add(1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_copy_agrees_with_the_portable_one() {
        let source: Vec<u8> = (0..5000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        for offset in 0..17 {
            for len in (0..600).chain([1023, 1024, 4096]) {
                let from = &source[offset..offset + len];
                let (mut fast, mut slow) = (vec![0xaa_u8; len + 2], vec![0xaa_u8; len + 2]);
                // SAFETY: both ranges are `len` bytes of live vectors.
                unsafe { copy_volatile(from.as_ptr(), fast[1..].as_mut_ptr(), len) };
                // SAFETY: both ranges are `len` bytes of live vectors.
                unsafe { portable::copy_volatile(from.as_ptr(), slow[1..].as_mut_ptr(), len) };
                assert_eq!(fast, slow, "offset {offset}, length {len}");
                assert_eq!((&fast[1..=len], fast[0], fast[len + 1]), (from, 0xaa, 0xaa));
            }
        }
    }
}
