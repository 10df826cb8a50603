//! `sealane top`: the same as `ls`, live.

mod columns;
mod help;
mod rates;
mod screen;

use std::{
    io::IsTerminal,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use ratatui::crossterm::event;
use signal_hook::consts::SIGTSTP;

use self::{
    rates::{Rates, Sort},
    screen::{Next, Screen},
};
use crate::{
    look::{Looker, Seen},
    output::print,
    rows::Namer,
    stop::{LOOK, Stop},
    units::duration,
};

/// How often all processes are walked over. Known regions are read at each tick.
const WALK_EVERY: Duration = Duration::from_secs(2);

/// Shows the channels and publishers of this machine, live, with rates.
///
/// The processes are not changed, and do not notice: figures are read from their control pages.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Keys: q quit · ? help · / filter · Esc no filter · s sort by the next column · r reverse · p pause · + - interval · arrows scroll ·
Ctrl-Z stop

Examples:
  sealane top
  sealane top --interval 100ms --sort in-use
  sealane top --once --json | jq '.rows[] | {from, to, messages_per_second}'"
)]
pub(crate) struct Options {
    /// Time between two looks: 50ms, 1s, 1m.
    #[arg(long, default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// The column to sort by.
    #[arg(long, default_value = "group")]
    sort: Sort,
    /// Shows only rows that contain this text, in whatever case.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
    /// Looks twice, prints a table with the rates between, and ends.
    #[arg(long)]
    once: bool,
    /// Prints JSON instead: one line for each look, or one document with `--once`.
    #[arg(long)]
    json: bool,
}

/// The bounds of an interval.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_hours(1));

fn interval(text: &str) -> Result<Duration> {
    let interval = duration(text)?;
    let (least, most) = INTERVALS;
    if interval < least || interval > most {
        bail!("{text} found, 50ms to 1h expected");
    }
    Ok(interval)
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let stop = Stop::on_signals()?;
    let mut looks = Looks::new()?;
    let shown = |looks: &Looks| looks.rates.shown(options.sort, false, &options.filter);
    if options.once {
        sleep(options.interval, &stop);
        looks.next()?;
        let rates = shown(&looks);
        let json = || serde_json::to_string_pretty(&rates).context("writing JSON");
        return print(&if options.json { json()? + "\n" } else { rates.text() });
    }
    if options.json {
        while sleep(options.interval, &stop) {
            looks.next()?;
            let json = serde_json::to_string(&shown(&looks)).context("writing JSON")?;
            if !crate::output::write(&(json + "\n"))? {
                break;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !std::io::stdout().is_terminal() {
        bail!("the standard output is no terminal: use --once or --json there");
    }
    let mut screen = Screen::new(options);
    let mut terminal = ratatui::try_init().context("preparing the terminal")?;
    stop.enforce(ratatui::restore)?;
    let result = live(&mut terminal, &mut screen, &mut looks, &stop);
    ratatui::restore();
    result.map(|()| ExitCode::SUCCESS)
}

/// Draws until the user, or a signal, ends it.
fn live(
    terminal: &mut ratatui::DefaultTerminal,
    screen: &mut Screen,
    looks: &mut Looks,
    stop: &Stop,
) -> Result<()> {
    let mut next = Instant::now() + screen.interval;
    loop {
        let rates = looks.rates.shown(screen.sort, screen.reverse, &screen.filter);
        terminal.draw(|frame| screen.draw(frame, &rates)).context("drawing")?;
        loop {
            if stop.is_asked() {
                return Ok(());
            }
            let left = next.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if !screen.paused {
                    looks.next()?;
                }
                next = Instant::now() + screen.interval;
                break;
            }
            if event::poll(left.min(LOOK)).context("waiting for a key")? {
                match screen.on_event(&event::read().context("reading a key")?) {
                    Next::Quit => return Ok(()),
                    Next::Suspend => {
                        ratatui::restore();
                        signal_hook::low_level::emulate_default_handler(SIGTSTP).context("stopping")?;
                        *terminal = ratatui::try_init().context("preparing the terminal")?;
                        break;
                    }
                    Next::Draw => {
                        next = next.min(Instant::now() + screen.interval);
                        break;
                    }
                    Next::Nothing => {}
                }
            }
        }
    }
}

/// Sleeps, and returns early for an order to end: then false.
fn sleep(time: Duration, stop: &Stop) -> bool {
    let deadline = Instant::now() + time;
    loop {
        if stop.is_asked() {
            return false;
        }
        match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => return true,
            left => std::thread::sleep(left.min(LOOK)),
        }
    }
}

/// The last two looks.
struct Looks {
    looker: Looker,
    namer: Namer,
    seen: Seen,
    walked: Instant,
    rates: Rates,
}

impl Looks {
    fn new() -> Result<Self> {
        let (mut looker, mut namer) = (Looker::new()?, Namer::default());
        let (walked, seen) = (Instant::now(), looker.look()?);
        let rates = Rates::first(seen.at, namer.report(&seen));
        Ok(Self { looker, namer, seen, walked, rates })
    }

    fn next(&mut self) -> Result<()> {
        if self.walked.elapsed() >= WALK_EVERY {
            self.walked = Instant::now();
            self.seen = self.looker.look()?;
        } else {
            self.looker.read(&mut self.seen)?;
        }
        self.rates.add(self.seen.at, self.namer.report(&self.seen));
        Ok(())
    }
}
