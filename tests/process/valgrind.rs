//! A program that uses the library runs under valgrind, which gives it another auxiliary vector (`getauxval(3)`) than the
//! kernel's.
//!
//! Valgrind loads all of this binary, so it is a small one of its own.

use std::{env::current_exe, process::Command, thread};

use sealane::{Channel, Control, SealedBufferMut};

/// A first program, which the other test runs under valgrind.
#[test]
fn a_first_program_works() {
    let (mut here, mut there) = Channel::pair().unwrap();
    let serving = thread::spawn(move || {
        let mut request = there.recv().unwrap();
        let sum: u64 = request.payload().unwrap().to_vec().iter().map(|byte| u64::from(*byte)).sum();
        assert_eq!(request.take_fds().len(), 1);
        let token = request.reply_token().unwrap();
        there.reply(token, &sum.to_le_bytes()).unwrap();
    });
    let table = SealedBufferMut::new(10).unwrap().seal().unwrap();
    let mut loan = here.loan(1000).unwrap();
    loan.fill(3);
    loan.request(Control::default().fd(&table)).unwrap();
    assert_eq!(here.recv().unwrap().control(), 3000_u64.to_le_bytes());
    serving.join().unwrap();
}

#[test]
fn valgrind_finds_nothing() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return println!("left out: there is no valgrind");
    }
    let program = current_exe().unwrap();
    let options = ["--quiet", "--error-exitcode=99"];
    let run = Command::new("valgrind")
        .args(options)
        .arg(program)
        .args(["--exact", "a_first_program_works"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{}\n{said}", run.status);
    assert!(String::from_utf8_lossy(&run.stdout).contains("1 passed"), "{said}");
}
