//! Errors: their texts, and the exit status.

use crate::{common::endpoint, program::Site};

fn explained(site: &Site, cases: &[(&[&str], i32, &str)]) {
    for &(args, status, expected) in cases {
        let run = site.run(args);
        assert_eq!(run.status, status, "{args:?}: {}", run.errors);
        assert!(run.errors.contains(expected), "{args:?}: {}", run.errors);
        assert!(run.out.is_empty(), "{args:?}: {}", run.out);
    }
}

#[test]
fn of_the_command_line() {
    let no_path = "TOPIC=PATH expected, as stats=/run/camera/stats; no `=` found";
    let size = "a size expected, as 4096 (bytes), 64KiB, 500MB or 1GiB; found \"much\"";
    let one_path = "/a is the path of `a` and of `b`: an import needs a path of its own";
    let wait = "drop-oldest or drop-newest expected; found \"wait=1s\": an import that waited would hold up the \
                network for all other topics";
    let folder = "sealane-bridge: publish at /nowhere/a: bind /nowhere/a failed: No such file or directory (os error 2)\n";
    explained(
        &Site::new(),
        &[
            (&["export", "stats"], 2, no_path),
            (&["export"], 2, "the following required arguments were not provided:\n  <TOPIC=PATH>..."),
            (
                &["export", "a=/a", "a=/b"],
                2,
                "sealane-bridge: topic `a` is there twice: give each topic once",
            ),
            (&["import", "a=/a", "b=/a"], 2, one_path),
            (&["import", "a=/a", "--when-behind", "wait=1s"], 2, wait),
            (&["import", "a=/a", "--plain"], 2, "unexpected argument '--plain' found"),
            (&["export", "a=/a", "--memory", "much"], 2, size),
            (&["export", "a=/a", "--memory", "0"], 1, "memory: at least one byte expected, 0 found"),
            (&["export", "a/*=/a"], 1, "`a/*` cannot be a topic: it has wildcards (*), but names one topic"),
            (&["router", "a=/a"], 2, "unexpected argument 'a=/a' found"),
            (&["run", "--config", "/nowhere"], 1, "sealane-bridge: /nowhere: No such file or directory"),
            (&["export", "a=/a", "--listen", "nowhere"], 1, "sealane-bridge: Zenoh's configuration: "),
            (&["import", "a=/nowhere/a", "--connect", "tcp/127.0.0.1:1"], 1, folder),
            (&["status", "--watch", "1s", "--interval", "1s"], 2, "cannot be used with"),
        ],
    );
}

#[test]
fn of_files() {
    let site = Site::new();
    let topics = site.file("topics.json5", "{ export: { stats: '/a' } }");
    let twice = site.file("twice.json5", "{ export: { stats: '/a', stats: '/b' } }");
    let circle = site.file("circle.json5", "{ export: { stats: '/a' }, import: { stats: '/b' } }");
    let none = site.file("none.json5", "{ listen: ['tcp/127.0.0.1:1'] }");
    let unknown = site.file("unknown.json5", "{\n  exprot: {} }");
    let no_path = site.file("no_path.json5", "{ import: { stats: { ring: '1MiB' } } }");
    let both = site.file("both.json5", "{ zenoh: { listen: { endpoints: ['tcp/127.0.0.1:1'] } } }");
    let zenoh = site.file("zenoh.json5", "{ zenoh: { mode: 'nonsense' } }");
    let mode = site.file("mode.json5", "{ router: true, export: { a: '/a' }, zenoh: { mode: 'peer' } }");
    let no_topic =
        "a topic expected under `export` or `import`, none found; `sealane-bridge router` needs none";
    let alone = "topics.json5: options of the network expected, as the command is `export`; topics found: \
                 `sealane-bridge run --config` carries them";
    let two_ways = "topic `stats` is both exported and imported: give one of them another name";
    let fields = "unknown.json5:2:3: unknown field `exprot`, expected one of `listen`, `connect`, `router`, `lease`, \
                  `export`, `import`, `zenoh`";
    let endpoints =
        "listen: endpoints are in Zenoh's own option `listen.endpoints`, too: leave out one of them";
    explained(
        &site,
        &[
            (&["export", "b=/b", "--config", &topics], 2, alone),
            (
                &["run", "--config", &twice],
                2,
                "twice.json5: topic `stats` is there twice: give each topic once",
            ),
            (&["run", "--config", &circle], 2, two_ways),
            (&["run", "--config", &none], 2, no_topic),
            (&["run", "--config", &unknown], 1, fields),
            (&["run", "--config", &no_path], 2, "topic `stats`: a path expected, none found"),
            (&["router", "--config", &both, "--listen", "tcp/127.0.0.1:2"], 2, endpoints),
            (
                &["run", "--config", &mode],
                2,
                "router: Zenoh's own option `mode` is \"peer\": leave out one of them",
            ),
            (&["export", "a=/a", "--config", &zenoh], 1, "sealane-bridge: Zenoh's configuration: "),
        ],
    );
}

#[test]
fn of_an_endpoint_that_is_taken() {
    let site = Site::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = endpoint(taken.local_addr().unwrap().port());
    let run = site.run(&["export", "a=@DIR/a", "--listen", &at]);
    assert_eq!(run.status, 1);
    let last = run.errors.lines().last().unwrap();
    assert!(last.starts_with("sealane-bridge: Zenoh, starting: ") && last.contains(&at), "{last}");
    assert!(last.contains("Address already in use") && !last.contains(".rs"), "{last}");
}
