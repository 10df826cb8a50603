//! `include/sealane.h` is what cbindgen makes of the sources. `UPDATE_HEADER=1 cargo test --package sealane-capi` writes it anew.

use std::{env, fs, path::Path};

use cbindgen::{Builder, Config};

const PREAMBLE: &str = include_str!("header_preamble.h");

/// Names in Rust and in C.
const TYPES: [(&str, &str); 11] = [
    ("Channel", "sealane_channel"),
    ("Handshake", "sealane_handshake"),
    ("Limits", "sealane_limits"),
    ("Listener", "sealane_listener"),
    ("Loan", "sealane_loan"),
    ("Message", "sealane_message"),
    ("Options", "sealane_options"),
    ("Peer", "sealane_peer"),
    ("Pipe", "sealane_pipe"),
    ("Sealed", "sealane_sealed"),
    ("Block", "sealane_block"),
];

/// The handles, whose state is behind locks or not C's: functions do not promise to leave them as they are.
const HANDLES: [&str; 7] = ["channel", "handshake", "listener", "loan", "message", "pipe", "sealed"];

fn generated() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = Config {
        language: cbindgen::Language::C,
        style: cbindgen::Style::Both,
        documentation_style: cbindgen::DocumentationStyle::Doxy,
        cpp_compat: true,
        include_guard: Some("SEALANE_H".to_owned()),
        no_includes: true,
        sys_includes: vec!["stddef.h".to_owned(), "stdint.h".to_owned()],
        header: Some(PREAMBLE.trim_end().to_owned()),
        line_length: 120,
        usize_is_size_t: true,
        ..Config::default()
    };
    // Declared by the library for itself.
    config.export.exclude = vec!["pthread_setcancelstate".to_owned()];
    config.export.rename = TYPES.iter().map(|(rust, c)| ((*rust).to_owned(), (*c).to_owned())).collect();
    config.export.include = TYPES.iter().map(|(rust, _)| (*rust).to_owned()).collect();
    let mut builder = Builder::new().with_config(config);
    for file in [
        "status",
        "options",
        "handshake",
        "listener",
        "channel",
        "halves",
        "loan",
        "message",
        "pipe",
        "sealed",
    ] {
        builder = builder.with_src(root.join("src").join(file).with_extension("rs"));
    }
    let mut written = Vec::new();
    builder.generate().expect("the sources can be parsed").write(&mut written);
    let mut text = String::from_utf8(written).expect("the header is text");
    for handle in HANDLES {
        text =
            text.replace(&format!("const struct sealane_{handle} *"), &format!("struct sealane_{handle} *"));
    }
    text
}

#[test]
fn header_is_that_of_the_sources() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/sealane.h");
    let generated = generated();
    if env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&path, &generated).expect("the header can be written");
    }
    let header = fs::read_to_string(&path).expect("the header is there");
    assert!(
        header == generated,
        "include/sealane.h is not that of the sources: UPDATE_HEADER=1 writes it anew"
    );
}
