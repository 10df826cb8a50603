//! `sealane-bridge status`.

use std::{fs, os::unix::fs::PermissionsExt};

use sealane::Publisher;
use sealane_bridge::Subscriber;
use serde_json::Value;

use crate::{
    common::{LONG, endpoint, free_port, next},
    first_message,
    program::{Program, Site},
};

fn export(site: &Site, at: &str) -> Program {
    site.start(&["export", "stats=@DIR/stats", "--listen", at])
}

#[test]
fn the_status_counts() {
    let site = Site::new();
    let at = endpoint(free_port());
    let export = export(&site, &at);
    let import = site.start(&["import", "stats=@DIR/far-stats", "--connect", &at]);
    let mut publisher = Publisher::bind(site.path("stats")).unwrap();
    let mut far = Subscriber::connect(site.path("far-stats"), LONG).unwrap();
    first_message(&mut publisher, &mut far, b"first");
    // What was sent in vain, and what was sent before the first arrived, is through.
    publisher.send(b"last").unwrap();
    while next(&mut far).0 != b"last" {}

    let bridge = |of: &Program| {
        let status = site.status();
        status.into_iter().find(|bridge| bridge["pid"] == of.pid()).unwrap()
    };
    let messages = || bridge(&import)["topics"][0]["count"]["messages"].as_u64().unwrap();
    let before = messages();
    for _ in 0..100 {
        publisher.send(b"counted").unwrap();
        assert_eq!(next(&mut far).1, 0);
    }
    assert_eq!(messages() - before, 100);
    let topic = &bridge(&import)["topics"][0];
    assert_eq!((&topic["topic"], &topic["role"]), (&"stats".into(), &"import".into()));
    assert_eq!((&topic["is_here"], &topic["subscribers"]), (&true.into(), &1.into()));
    assert_eq!((&topic["count"]["runs"], &topic["rates"]["bytes"]), (&1.into(), &0.0.into()));

    let exporter = bridge(&export);
    assert_eq!(exporter["listen"], serde_json::json!([at]));
    assert_eq!(exporter["peers"].as_array().unwrap().len(), 1);
    assert_eq!(exporter["topics"][0]["path"], site.path("stats").to_str().unwrap());

    let table = site.run(&["status", "--interval", "0"]).out;
    assert!(table.contains(&format!("Bridge {} (", export.pid())), "{table}");
    assert!(table.contains(&format!("listens at {at}")) && table.contains("MISSED"), "{table}");
}

#[test]
fn no_bridge_is_an_error() {
    let none = Site::new().run(&["status", "--json"]);
    assert_eq!((none.status, none.out.as_str()), (1, ""));
    assert_eq!(none.errors, "sealane-bridge: no bridge of this user runs on this machine\n");
}

/// It goes on until its reader is gone.
#[test]
fn the_status_can_be_watched() {
    let site = Site::new();
    let _export = export(&site, &endpoint(free_port()));
    for line in site.first_lines(&["status", "--watch", "10ms", "--json"], 3) {
        let bridges: Vec<Value> = serde_json::from_str(&line).unwrap();
        assert_eq!(bridges[0]["topics"][0]["rates"]["messages"], 0.0);
    }
}

/// Other clients that say nothing, or nonsense, hold nobody up for long.
#[test]
fn a_client_that_stalls_does_not_stop_the_status() {
    let site = Site::new();
    let export = export(&site, &endpoint(free_port()));
    let socket = site.path(&format!("sealane-bridge/{}.sock", export.pid()));
    let _silent = sealane::Channel::connect(&socket).unwrap();
    let mut wrong = sealane::Channel::connect(&socket).unwrap();
    wrong.send(b"nonsense").unwrap();
    assert_eq!(site.status().len(), 1);
    let _silent_again = sealane::Channel::connect(&socket).unwrap();
    export.ends_in_order();
}

#[test]
fn a_folder_that_is_open_to_others_is_not_used() {
    let site = Site::new();
    let folder = site.path("sealane-bridge");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let export = export(&site, &endpoint(free_port()));
    let refused = site.run(&["status"]);
    assert_eq!(refused.status, 1);
    assert!(refused.errors.contains("(mode 0700) expected, mode 0777 found"), "{}", refused.errors);
    let said = "`sealane-bridge status` will not see this bridge";
    assert!(export.log().contains(said), "{}", export.log());
    export.ends_in_order();
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
}
