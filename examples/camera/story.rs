//! The report as a person reads it: what happened in sentences, the figures below them, with units.
//!
//! A sentence says what this run has measured, and stands only where there is something to say.

use console::{Style, Term};
use sealane::Slow;

use crate::algorithm::{COLOUR_TOLERANCE, EXPOSURE_TOLERANCE, NEUTRAL, TARGET_LUMA};
use crate::protocol::{Observation, Settings};
use crate::report::{Facts, Fate, Publishing, Streaming, Subscribed};
use crate::sandbox::Sandbox;
use crate::sensor::Played;

/// Columns of a line where the output is no terminal, and at most.
const DEFAULT_WIDTH: usize = 80;
const INDENT: &str = "  ";

/// The report for the standard output.
pub(crate) fn for_stdout(facts: &Facts) -> String {
    let width = Term::stdout().size_checked().map_or(DEFAULT_WIDTH, |(_, columns)| columns.into());
    let heading = Style::new().bold();
    text(facts, width.min(DEFAULT_WIDTH), |title| heading.apply_to(title).to_string())
}

/// The report, in lines of at most `width` columns where words allow that.
fn text(facts: &Facts, width: usize, heading: impl Fn(&str) -> String) -> String {
    let aims = if facts.ending.has_colour_gains { "Exposure and white balance" } else { "Exposure" };
    let publishing = facts.ending.publishing.as_ref();
    let transport = match publishing {
        None => ("Channel", channel(facts), Vec::new()),
        Some(_) => ("Publisher", publisher(facts), Vec::new()),
    };
    let groups = [
        (aims, picture(facts), figures(facts)),
        transport,
        (
            "Subscribers",
            publishing.map_or(Vec::new(), happenings),
            publishing.map_or(Vec::new(), subscribers),
        ),
        ("Isolation", isolation(facts), Vec::new()),
        ("Clip", facts.ending.played.as_ref().map_or(Vec::new(), |played| clip(facts, played)), Vec::new()),
        ("Pictures", pictures(facts), Vec::new()),
    ];
    let mut text = Vec::new();
    for (title, sentences, rows) in groups {
        if sentences.is_empty() && rows.is_empty() {
            continue;
        }
        text.extend((!text.is_empty()).then(String::new));
        text.push(heading(title));
        text.extend(sentences.iter().flat_map(|sentence| wrapped(sentence, width)));
        text.extend(rows.into_iter().map(|row| format!("{INDENT}{row}")));
    }
    text.join("\n")
}

/// Whether, when and for how long the loop was on target.
fn picture(facts: &Facts) -> Vec<String> {
    let frames = u64::from(facts.frames);
    let [brightness, colour] = [EXPOSURE_TOLERANCE, COLOUR_TOLERANCE].map(|share| share * 100.0);
    let colour = if facts.ending.has_colour_gains {
        format!(", colour within {colour:.0}{NO_BREAK}%")
    } else {
        String::new()
    };
    let aim = format!("brightness within {brightness:.0}{NO_BREAK}%{colour}");
    let Some(at) = facts.converged_at_frame else {
        return vec![format!("The loop did not converge in {}: it never had {aim}.", count(frames, "frame"))];
    };
    let which = if at == 0 { ", the first" } else { "" };
    let mut sentences = vec![format!("The loop converged at frame {at}{which}: {aim}.")];
    let later = frames.saturating_sub(at + 1);
    let stayed = u64::from(facts.frames_converged).saturating_sub(1);
    sentences.extend((later > 0).then(|| match stayed {
        0 => format!("None of the {} after it was on target.", count(later, "frame")),
        all if all == later => format!("All {} after it were on target, too.", count(later, "frame")),
        some => format!("{some} of the {} after it were on target, too.", count(later, "frame")),
    }));
    sentences
}

/// The first frame's measurements and the last's, the target, and the settings that the loop changed.
fn figures(facts: &Facts) -> Vec<String> {
    let (Some(first), Some(last)) = (facts.first, facts.last) else { return Vec::new() };
    let row = |name: &str, first: &str, last: &str, target: &str| {
        format!("{name:<13}{first:>8}{last:>9}{target:>8}").trim_end().to_owned()
    };
    let mut rows = vec![row("", "first", "last", "target")];
    let mut seen = |name, what: fn(&Observation) -> f64, decimals, target| {
        let [first, last, target] =
            [what(&first), what(&last), target].map(|value| format!("{value:.decimals$}"));
        rows.push(row(name, &first, &last, &target));
    };
    seen("brightness", |seen| seen.mean_luma, 1, TARGET_LUMA);
    if facts.ending.has_colour_gains {
        seen("red/green", |seen| seen.red_to_green, 2, NEUTRAL);
        seen("blue/green", |seen| seen.blue_to_green, 2, NEUTRAL);
    }
    let mut set = |name, what: fn(&Settings) -> String| {
        let [first, last] =
            [facts.ending.first_settings, facts.ending.settings].map(|settings| what(&settings));
        if first != last {
            rows.push(row(name, &first, &last, ""));
        }
    };
    set("exposure", |settings| format!("{:.2} ms", settings.exposure_us / 1000.0));
    set("analogue gain", |settings| format!("{:.2}", settings.analogue_gain));
    set("red gain", |settings| format!("{:.2}", settings.red_gain));
    set("blue gain", |settings| format!("{:.2}", settings.blue_gain));
    rows
}

/// The messages that crossed, and their cost.
fn channel(facts: &Facts) -> Vec<String> {
    let frames = u64::from(facts.frames);
    let Streaming { doorbells, packets_sent, packets_received, waits_for_room } = facts.streaming;
    let cost = match facts.frames_without_system_call() {
        0 => String::new(),
        free if free == frames => " without a system call while both were awake".into(),
        free => format!(", {free} of them without a system call, as both were awake"),
    };
    let size = bytes(facts.ending.statistics_bytes as u64);
    let mut sentences = vec![format!("{} of {size} were sent{cost}.", count(frames, "frame"))];
    if doorbells > 0 {
        let woke = times(doorbells);
        sentences.push(format!("A doorbell, one system call, woke the sleeping algorithm {woke}."));
    }
    if packets_sent > 0 {
        sentences
            .push(format!("{} went to the algorithm, one system call each.", count(packets_sent, "packet")));
    }
    if waits_for_room > 0 {
        sentences.push(format!("{} waited for room in the ring.", count(waits_for_room, "frame")));
    }
    sentences.push(format!(
        "Half of the controls came in {}, 99{NO_BREAK}% in {}, with {}.",
        micros(facts.round_trip_p50_us),
        micros(facts.round_trip_p99_us),
        count(packets_received, "system call"),
    ));
    sentences.extend(pace(facts));
    sentences
}

/// Controls that were late, and the speed of the run.
fn pace(facts: &Facts) -> Vec<String> {
    let mut sentences = Vec::new();
    if facts.late_controls > 0 {
        let late = times(facts.late_controls.into());
        sentences.push(format!("Controls were late {late}: the next frame was taken without them."));
    }
    let seconds = facts.ending.elapsed.as_secs_f64();
    sentences.push(format!("The run took {seconds:.2} s: {:.0} frames a second.", facts.frames_per_second()));
    sentences
}

/// The messages that were published, and their cost.
fn publisher(facts: &Facts) -> Vec<String> {
    let Streaming { doorbells, packets_sent, waits_for_room, .. } = facts.streaming;
    let size = bytes(facts.ending.statistics_bytes as u64);
    let mut sentences =
        vec![format!("{} of {size} were published, each once.", count(facts.frames.into(), "frame"))];
    if packets_sent > 0 {
        let descriptors = count(packets_sent, "descriptor");
        sentences.push(format!("{descriptors} of frame buffers went to subscribers, one system call each."));
    }
    if doorbells > 0 {
        sentences
            .push(format!("Sleeping subscribers were woken {}, one system call each.", times(doorbells)));
    }
    if waits_for_room > 0 {
        sentences.push(format!("{} waited for room in the ring.", count(waits_for_room, "frame")));
    }
    sentences.push(format!(
        "Half of the controls came in {}, 99{NO_BREAK}% in {}.",
        micros(facts.round_trip_p50_us),
        micros(facts.round_trip_p99_us),
    ));
    sentences.extend(pace(facts));
    sentences
}

/// The story of the subscribers that did not just stay.
fn happenings(publishing: &Publishing) -> Vec<String> {
    let mut sentences = Vec::new();
    let held = |buffers: usize| match buffers {
        0 => String::new(),
        1 => " with a buffer, which came back".into(),
        many => format!(" with {many} buffers, which came back"),
    };
    for Subscribed { name, joined, fate, .. } in &publishing.subscribers {
        if *joined > 0 {
            sentences.push(format!("The {name} joined at frame {joined}."));
        }
        sentences.extend(match fate {
            Fate::Stayed => None,
            Fate::Stopped { from, to } => {
                Some(format!("The {name} was stopped from frame {from} to frame {to}; nobody waited for it."))
            }
            Fate::Killed { frame, buffers } => {
                Some(format!("The {name} was killed at frame {frame}{}.", held(*buffers)))
            }
            Fate::Left { frame, buffers, reason } => {
                Some(format!("The {name} left at frame {frame}{}: {reason}.", held(*buffers)))
            }
        });
    }
    match publishing.buffers_taken_back {
        0 => {}
        1 => sentences.push("A buffer was taken back from subscribers that may miss frames.".into()),
        many => {
            sentences.push(format!("{many} buffers were taken back from subscribers that may miss frames."));
        }
    }
    sentences
}

/// The subscribers' figures.
fn subscribers(publishing: &Publishing) -> Vec<String> {
    let row = |name: &str, policy: &str, figures: [&str; 5]| {
        let [published, received, missed, taken, held] = figures;
        format!("{name:<16}{policy:<10}{published:>9}{received:>9}{missed:>8}{taken:>8}{held:>6}")
    };
    let mut rows = vec![row("", "when slow", ["published", "received", "missed", "taken", "held"])];
    rows.extend(publishing.subscribers.iter().map(|subscriber| {
        let Subscribed { name, policy, published, counts, held_at_most, .. } = subscriber;
        let policy = if *policy == Slow::Overrun { "misses" } else { "waited for" };
        let held = *held_at_most as u64;
        let figures = [*published, counts.received, counts.missed, counts.taken_back, held]
            .map(|figure| if figure == 0 { "-".to_owned() } else { figure.to_string() });
        row(name, policy, figures.each_ref().map(String::as_str))
    }));
    rows
}

/// The barriers around the algorithm process.
fn isolation(facts: &Facts) -> Vec<String> {
    let mut sentences = Vec::new();
    if facts.frame_buffers_verified > 0 {
        let frames = count(facts.frame_buffers_verified, "frame");
        sentences.push(format!("The algorithm compared rows of {frames} with their statistics: all agree."));
    }
    if facts.forbidden_acts_tried > 0 {
        sentences.push(format!(
            "It tried {} ({}); its sandbox refused {}.",
            count(facts.forbidden_acts_tried.into(), "forbidden act"),
            Sandbox::ACTS_IN_WORDS,
            if facts.forbidden_acts_refused == facts.forbidden_acts_tried {
                "all".to_owned()
            } else {
                facts.forbidden_acts_refused.to_string()
            },
        ));
    }
    sentences
}

/// How much of the clip was played, how often, and its fault.
fn clip(facts: &Facts, played: &Played) -> Vec<String> {
    let frames = u64::from(facts.frames);
    let whole = |length| count(length, "whole frame");
    let name = &played.name;
    let mut sentences = vec![match played.length {
        None => format!("Of {name}, the first {} were played.", count(frames, "frame")),
        Some(length) if length == frames => format!("All {} of {name} were played once.", whole(length)),
        Some(length) => format!("All {} of {name} were played in a loop.", whole(length)),
    }];
    sentences.extend(played.damage.iter().map(|damage| format!("The clip is {damage}.")));
    sentences
}

fn pictures(facts: &Facts) -> Vec<String> {
    let Ok([first, last]) = facts.ending.saved.as_deref() else { return Vec::new() };
    vec![format!("The first frame is in {}, the last in {}.", first.display(), last.display())]
}

/// The clip's fault and the part that was used: a line for the standard error.
pub(crate) fn warning(facts: &Facts) -> Option<String> {
    let Played { name, length, damage } = facts.ending.played.as_ref()?;
    let (whole, damage) = (count((*length)?, "whole frame"), damage.as_ref()?);
    Some(format!("camera: {name} is {damage}; {whole} before that were used"))
}

/// Keeps a figure and its unit in one line.
const NO_BREAK: char = '\u{a0}';

/// The sentence in indented lines, the first less than the others.
fn wrapped(sentence: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in sentence.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) => lines.push(format!("{INDENT}{INDENT}{word}")),
            None => lines.push(format!("{INDENT}{word}")),
        }
    }
    lines.into_iter().map(|line| line.replace(NO_BREAK, " ")).collect()
}

fn times(number: u64) -> String {
    if number == 1 { "once".into() } else { format!("{number} times") }
}

fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[expect(clippy::cast_precision_loss, reason = "figures to look at")]
fn bytes(count: u64) -> String {
    let kib = count as f64 / 1024.0;
    if kib < 1024.0 { format!("{kib:.0}{NO_BREAK}KiB") } else { format!("{:.1}{NO_BREAK}MiB", kib / 1024.0) }
}

fn micros(micros: f64) -> String {
    if micros < 1000.0 {
        format!("{micros:.0}{NO_BREAK}µs")
    } else {
        format!("{:.1}{NO_BREAK}ms", micros / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::report::Ending;
    use crate::viewers::Counts;

    /// A run in which everything went well: no figure that counts trouble is other than 0.
    fn facts() -> Facts {
        let observation = |mean_luma, red_to_green, blue_to_green| {
            Some(Observation { mean_luma, red_to_green, blue_to_green, focus: 48.0 })
        };
        Facts {
            frames: 300,
            streaming: Streaming { packets_received: 300, ..Streaming::default() },
            round_trip_p50_us: 99.4,
            round_trip_p99_us: 4400.0,
            late_controls: 0,
            frame_buffers_verified: 300,
            forbidden_acts_tried: 0,
            forbidden_acts_refused: 0,
            converged_at_frame: Some(3),
            frames_converged: 297,
            first: observation(13.38, 1.39, 0.61),
            last: observation(46.19, 1.0, 0.99),
            ending: Ending {
                elapsed: Duration::from_millis(1500),
                statistics_bytes: 129 << 10,
                first_settings: Settings::WRONG,
                settings: Settings {
                    exposure_us: 9331.0,
                    analogue_gain: 1.0,
                    red_gain: 0.72,
                    blue_gain: 1.7,
                },
                has_colour_gains: true,
                channel: sealane::Stats::default(),
                played: None,
                saved: Ok(Vec::new()),
                publishing: None,
            },
        }
    }

    fn plain(facts: &Facts) -> String {
        text(facts, 80, str::to_owned)
    }

    /// Whether the report has this sentence, wherever its lines are broken.
    fn says(facts: &Facts, sentence: &str) -> bool {
        plain(facts).split_whitespace().collect::<Vec<_>>().join(" ").contains(sentence)
    }

    #[track_caller]
    fn assert_says(facts: &Facts, sentence: &str) {
        assert!(says(facts, sentence), "{sentence:?} in:\n{}", plain(facts));
    }

    #[test]
    fn the_report_of_a_good_run_is_this() {
        let expected = "\
Exposure and white balance
  The loop converged at frame 3: brightness within 10 %, colour within 3 %.
  All 296 frames after it were on target, too.
                  first     last  target
  brightness       13.4     46.2    45.9
  red/green        1.39     1.00    1.00
  blue/green       0.61     0.99    1.00
  exposure      2.50 ms  9.33 ms
  red gain         1.00     0.72
  blue gain        1.00     1.70

Channel
  300 frames of 129 KiB were sent without a system call while both were awake.
  Half of the controls came in 99 µs, 99 % in 4.4 ms, with 300 system calls.
  The run took 1.50 s: 200 frames a second.

Isolation
  The algorithm compared rows of 300 frames with their statistics: all agree.";
        assert_eq!(plain(&facts()), expected);
    }

    #[test]
    fn subscribers_are_told_of_one_by_one() {
        let subscriber = |name: &str, policy, joined, fate| Subscribed {
            name: name.into(),
            policy,
            joined,
            published: 300,
            counts: Counts { received: 224, missed: 76, taken_back: 0 },
            held_at_most: 3,
            fate,
        };
        let mut facts = facts();
        facts.streaming = Streaming { packets_sent: 900, doorbells: 1, ..Streaming::default() };
        let left = Fate::Left { frame: 4, buffers: 2, reason: "it kept frames for too long".into() };
        facts.ending.publishing = Some(Publishing {
            path: "/run/frames".into(),
            subscribers: vec![
                subscriber("preview", Slow::Overrun, 0, Fate::Stopped { from: 75, to: 150 }),
                subscriber("recorder", Slow::Wait(Duration::MAX), 9, Fate::Killed { frame: 112, buffers: 1 }),
                subscriber("process 7", Slow::Wait(Duration::MAX), 0, left),
            ],
            buffers_taken_back: 74,
        });
        let expected = "\
Publisher
  300 frames of 129 KiB were published, each once.
  900 descriptors of frame buffers went to subscribers, one system call each.
  Sleeping subscribers were woken once, one system call each.
  Half of the controls came in 99 µs, 99 % in 4.4 ms.
  The run took 1.50 s: 200 frames a second.

Subscribers
  The preview was stopped from frame 75 to frame 150; nobody waited for it.
  The recorder joined at frame 9.
  The recorder was killed at frame 112 with a buffer, which came back.
  The process 7 left at frame 4 with 2 buffers, which came back: it kept frames
    for too long.
  74 buffers were taken back from subscribers that may miss frames.
                  when slow published received  missed   taken  held
  preview         misses          300      224      76       -     3
  recorder        waited for      300      224      76       -     3
  process 7       waited for      300      224      76       -     3";
        assert!(plain(&facts).contains(expected), "{}", plain(&facts));
        let object = facts.json();
        assert_eq!(object["subscribers"][1]["fate"]["buffers_back"], 1);
        assert_eq!(
            (&object["subscribers"][0]["policy"], &object["buffers_taken_back"]),
            (&"overrun".into(), &74.into())
        );
    }

    #[test]
    fn no_line_has_a_zero_for_its_figure() {
        let mut quiet = facts();
        quiet.streaming.doorbells = 300;
        quiet.ending.settings = quiet.ending.first_settings;
        for facts in [facts(), quiet] {
            let report = plain(&facts);
            let is_zero = |word: &str| word.trim_matches(|mark: char| !mark.is_ascii_digit()) == "0";
            assert!(!report.split_whitespace().any(is_zero), "{report}");
            for absent in ["late", "room", "forbidden", "Clip", "Pictures"] {
                assert!(!report.contains(absent), "{absent}: {report}");
            }
        }
    }

    #[test]
    fn system_calls_are_claimed_as_they_were_counted() {
        let mut facts = facts();
        facts.streaming.doorbells = 296;
        assert_says(
            &facts,
            "300 frames of 129 KiB were sent, 4 of them without a system call, as both were awake.",
        );
        assert_says(&facts, "A doorbell, one system call, woke the sleeping algorithm 296 times.");
        facts.streaming.doorbells = 300;
        assert_says(
            &facts,
            "300 frames of 129 KiB were sent. A doorbell, one system call, woke the sleeping algorithm 300 times.",
        );
        facts.streaming = Streaming { packets_sent: 2, waits_for_room: 1, ..Streaming::default() };
        assert_says(&facts, "were sent, 297 of them without a system call");
        assert_says(&facts, "2 packets went to the algorithm");
        assert_says(&facts, "1 frame waited for room");
    }

    #[test]
    fn late_controls_are_said_if_there_were_any() {
        let mut facts = facts();
        facts.late_controls = 1;
        assert_says(&facts, "Controls were late once: the next frame was taken without them.");
    }

    #[test]
    fn convergence_is_claimed_for_the_frames_that_had_it() {
        let mut facts = facts();
        facts.frames_converged = 296;
        assert_says(&facts, "295 of the 296 frames after it were on target, too.");
        facts.frames_converged = 1;
        assert_says(&facts, "None of the 296 frames after it was on target.");
        (facts.converged_at_frame, facts.frames) = (Some(0), 1);
        assert_says(&facts, "The loop converged at frame 0, the first: brightness");
        assert!(!says(&facts, "after it"));
        facts.converged_at_frame = None;
        assert_says(&facts, "The loop did not converge in 1 frame: it never had brightness");
    }

    #[test]
    fn a_camera_that_balances_colour_itself_is_judged_by_its_brightness() {
        let mut facts = facts();
        facts.ending.has_colour_gains = false;
        facts.ending.settings = Settings { exposure_us: 9331.0, ..facts.ending.first_settings };
        let report = plain(&facts);
        assert!(report.contains("exposure      2.50 ms  9.33 ms"), "{report}");
        assert!(
            !report.contains("colour") && !report.contains("red/") && !report.contains("gain"),
            "{report}"
        );
    }

    #[test]
    fn refused_acts_of_the_sandbox_are_reported() {
        let mut facts = facts();
        (facts.forbidden_acts_tried, facts.forbidden_acts_refused) = (900, 900);
        assert_says(&facts, "It tried 900 forbidden acts");
        assert_says(&facts, "its sandbox refused all.");
    }

    #[test]
    fn a_clip_is_said_to_be_played_as_far_and_as_often_as_it_was() {
        let mut facts = facts();
        let played = |length, damage: Option<&str>| {
            Some(Played { name: "a.y4m".into(), length, damage: damage.map(Into::into) })
        };
        facts.ending.played = played(None, None);
        assert_says(&facts, "Of a.y4m, the first 300 frames were played.");
        facts.ending.played = played(Some(300), None);
        assert_says(&facts, "All 300 whole frames of a.y4m were played once.");
        facts.ending.played = played(Some(48), None);
        assert_says(&facts, "All 48 whole frames of a.y4m were played in a loop.");
        assert_eq!(warning(&facts), None);
        facts.ending.played = played(Some(48), Some("truncated: expected 9 bytes for frame 48, found 8"));
        assert_says(&facts, "The clip is truncated: expected 9 bytes for frame 48, found 8.");
        let expected = "camera: a.y4m is truncated: expected 9 bytes for frame 48, found 8; 48 whole frames before that were used";
        assert_eq!(warning(&facts).as_deref(), Some(expected));
    }

    #[test]
    fn saved_pictures_are_named() {
        let mut facts = facts();
        facts.ending.saved = Ok(["d/first.png", "d/last.png"].map(PathBuf::from).to_vec());
        assert_says(&facts, "The first frame is in d/first.png, the last in d/last.png.");
    }

    #[test]
    fn lines_are_no_wider_than_the_terminal() {
        let mut facts = facts();
        facts.streaming.doorbells = 296;
        facts.forbidden_acts_tried = 900;
        for width in [40, 60, 80] {
            let report = text(&facts, width, str::to_owned);
            let widest = report.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width), "{width}: {report}");
        }
    }

    #[test]
    fn the_object_has_every_figure_zeros_included() {
        let object = facts().json();
        for (name, value) in [("late_controls", 0), ("sleeps", 0), ("frames", 300), ("converged_at_frame", 3)]
        {
            assert_eq!(object[name], value, "{name}");
        }
        assert_eq!(object["frames_sent_without_system_call"], 300);
        assert!(object["clip_damage"].is_null());
    }
}
