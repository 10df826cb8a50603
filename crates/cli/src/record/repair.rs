//! `sealane record --repair`: a whole file from one whose recorder was killed.
//!
//! The new file is written beside and renamed when it is complete and on the disk. So whoever kills this leaves the old file as it was.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, anyhow, ensure};
use bytesize::ByteSize;
use serde::Serialize;

use crate::{
    output::line,
    record::{
        salvage::Salvage,
        summary::Place,
        target::{exists, lock},
    },
    recording::{
        damages::Damages,
        fields::Fields,
        layout::REPAIRED,
        records::{MAGIC, Records, op},
    },
};

/// The findings of a repair, and its work.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(serialize_with = "crate::output::path")]
    file: PathBuf,
    /// The file was whole, and nothing was written.
    was_whole: bool,
    messages: u64,
    chunks: usize,
    bytes_before: u64,
    bytes_after: u64,
    /// Messages of a chunk within which the file ended: no sum tells whether their bytes are right.
    messages_unchecked: u64,
    /// Bytes of the file before that are not in the new one, apart from its index.
    bytes_left_out: u64,
    #[serde(flatten)]
    damages: Damages,
}

/// Runs the command.
pub(crate) fn run(path: &Path, output: Option<&Path>, force: bool, json: bool) -> Result<ExitCode> {
    let report = repair(path, output, force).with_context(|| format!("repair {}", path.display()))?;
    let text = if json { serde_json::to_string(&report)? } else { describe(&report) };
    line(&text, false)?;
    Ok(ExitCode::SUCCESS)
}

fn repair(path: &Path, output: Option<&Path>, force: bool) -> Result<Report> {
    // A link stays one: what it leads to is repaired.
    let path = path.canonicalize().context("realpath")?;
    let mut file = File::open(&path).context("open")?;
    let metadata = file.metadata().context("fstat")?;
    ensure!(metadata.is_file(), "a file expected, a directory or a device found");
    if let Some(output) = output.filter(|output| !force && output.symlink_metadata().is_ok()) {
        return Err(exists(output));
    }
    lock(&file, &path)?;
    if has_end_mark(&mut file)?
        && let Some((messages, chunks)) = examine(&mut file)?
    {
        let bytes = metadata.len();
        return Ok(Report {
            file: path,
            was_whole: true,
            messages,
            chunks,
            bytes_before: bytes,
            bytes_after: bytes,
            messages_unchecked: 0,
            bytes_left_out: 0,
            damages: Damages::default(),
        });
    }
    file.rewind().context("lseek")?;
    let target = output.unwrap_or(&path);
    let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = target.file_name().context("a name of a file expected")?.to_owned();
    name.push(".repair-");
    let new = tempfile::Builder::new()
        .prefix(&name)
        .permissions(metadata.permissions())
        .tempfile_in(directory)
        .with_context(|| format!("make a file in {}", directory.display()))?;
    let mut salvage = Salvage::begin(BufWriter::new(new))?;
    salvage_from(&file, metadata.len(), &mut salvage)?;
    let mut values = vec![("messages", salvage.file.summary.message_count().to_string())];
    values.extend(salvage.damages.first().map(|damage| ("damage", damage.to_owned())));
    salvage.file.write_metadata(REPAIRED, values.iter().map(|(key, value)| (*key, value.as_str())))?;
    let (messages, chunks) = (salvage.file.summary.message_count(), salvage.file.summary.chunks.len());
    let damages = std::mem::take(&mut salvage.damages);
    let (messages_unchecked, bytes_left_out) = (salvage.unchecked, salvage.left_out);
    salvage.file.write_end()?;
    let new = salvage.file.into_inner().into_inner().map_err(|error| anyhow!(error.into_error()))?;
    let bytes_after = new.as_file().metadata().context("fstat")?.len();
    new.as_file().sync_all().context("fsync")?;
    if output.is_some() && !force {
        new.persist_noclobber(target).map_err(|error| error.error)
    } else {
        new.persist(target).map_err(|error| error.error)
    }
    .with_context(|| format!("rename to {}", target.display()))?;
    // The new name is on the disk as well. Some file systems do not know how to do that for a directory.
    let _ = File::open(directory).and_then(|directory| directory.sync_all());
    Ok(Report {
        file: target.to_owned(),
        was_whole: false,
        messages,
        chunks,
        bytes_before: metadata.len(),
        bytes_after,
        messages_unchecked,
        bytes_left_out,
        damages,
    })
}

/// Copies what is whole. A recorder that was killed at once leaves a file without a header, or with nothing at all.
fn salvage_from(file: &File, len: u64, salvage: &mut Salvage<impl io::Write>) -> Result<()> {
    let library = concat!("sealane ", env!("CARGO_PKG_VERSION"));
    let mut start = Vec::new();
    file.take(MAGIC.len() as u64).read_to_end(&mut start)?;
    if start.len() < MAGIC.len() && MAGIC.starts_with(&start) {
        salvage.damaged(&anyhow!("the file ends before its first record"));
        salvage.left_out = len;
        return Ok(salvage.file.write_header(library)?);
    }
    let mut records = Records::new(start.chain(BufReader::new(file)))?;
    match records.read() {
        Ok(Some((op::HEADER, data))) => {
            let mut fields = Fields::new(data);
            let strings = fields.string().and_then(|_| fields.string());
            match strings {
                Ok(_) => salvage.file.write(op::HEADER, data)?,
                Err(_) => salvage.file.write_header(library)?,
            }
        }
        Ok(Some((opcode, _))) => anyhow::bail!("a header expected, a record {opcode:#04x} found"),
        Ok(None) | Err(_) => {
            salvage.damaged(&anyhow!("the file ends before its first record"));
            salvage.left_out = len.saturating_sub(MAGIC.len() as u64);
            return Ok(salvage.file.write_header(library)?);
        }
    }
    salvage.copy(&mut records)?;
    let rest = |from: u64| len.saturating_sub(from);
    if !salvage.has_ended {
        salvage.left_out += rest(records.position() + salvage.kept_of_cut);
        return Ok(());
    }
    while !salvage.has_footer {
        let Ok(Some((opcode, _))) = records.read() else {
            let at = records.position();
            salvage.damaged(&anyhow!("the old index, which is not whole at byte {at}; the new one is"));
            return Ok(());
        };
        salvage.has_footer = opcode == op::FOOTER;
    }
    let has_mark = records.rest(MAGIC.len() as u64)? == MAGIC;
    let end = records.position() + if has_mark { MAGIC.len() as u64 } else { 0 };
    if rest(end) > 0 {
        salvage.damaged(&anyhow!("{} bytes behind the end of the recording, at byte {end}", rest(end)));
        salvage.left_out += rest(end);
    }
    Ok(())
}

/// Whether the file ends as a whole one.
fn has_end_mark(file: &mut File) -> Result<bool> {
    let len = file.metadata().context("fstat")?.len();
    let Some(start) = len.checked_sub(MAGIC.len() as u64) else { return Ok(false) };
    file.seek(SeekFrom::Start(start)).context("lseek")?;
    let mut mark = Vec::new();
    file.by_ref().take(MAGIC.len() as u64).read_to_end(&mut mark)?;
    Ok(mark == MAGIC)
}

/// Reads all of a file. Its messages and chunks, if it is whole: no damage, and an index, if there is one, of the chunks that there are.
fn examine(file: &mut File) -> Result<Option<(u64, usize)>> {
    file.rewind().context("lseek")?;
    let mut records = Records::new(BufReader::new(&*file))?;
    let mut salvage = Salvage::begin(io::sink())?;
    salvage.only_reads = true;
    salvage.copy(&mut records)?;
    if !salvage.has_ended || !salvage.damages.is_empty() {
        return Ok(None);
    }
    let summary_start = records.position();
    let mut indexed = Vec::new();
    let says_start = loop {
        match records.read() {
            Ok(Some((op::CHUNK_INDEX, data))) => {
                let mut fields = Fields::new(data);
                let Ok(place) =
                    fields.bytes(16).and_then(|_| Ok(Place { offset: fields.u64()?, length: fields.u64()? }))
                else {
                    return Ok(None);
                };
                indexed.push(place);
            }
            Ok(Some((op::FOOTER, data))) => match Fields::new(data).u64() {
                Ok(start) => break start,
                Err(_) => return Ok(None),
            },
            Ok(Some(_)) => {}
            _ => return Ok(None),
        }
    };
    let is_marked = records.rest(MAGIC.len() as u64 + 1)? == MAGIC;
    let has_index = says_start == 0 && indexed.is_empty() || says_start == summary_start;
    let mut found: Vec<_> = salvage.file.summary.chunks.iter().map(|chunk| chunk.place).collect();
    found.sort_by_key(|place| place.offset);
    indexed.sort_by_key(|place| place.offset);
    let fits = indexed.is_empty() || indexed == found;
    let counts = (salvage.file.summary.message_count(), salvage.file.summary.chunks.len());
    Ok((is_marked && has_index && fits).then_some(counts))
}

fn describe(report: &Report) -> String {
    let Report { file, messages, chunks, bytes_before, bytes_after, damages, was_whole, .. } = report;
    let counts = format!("{messages} messages in {chunks} chunks");
    if *was_whole {
        return format!("{} is whole: {counts}; nothing was changed", file.display());
    }
    let (after, before) = (ByteSize(*bytes_after), ByteSize(*bytes_before));
    let mut first = vec![format!("{} is whole now: {counts}, {after} (before: {before})", file.display())];
    if report.messages_unchecked > 0 {
        first.push(format!("{} of the messages are not checked", report.messages_unchecked));
    }
    if report.bytes_left_out > 0 {
        first.push(format!("{} bytes are left out", report.bytes_left_out));
    }
    [vec![first.join("; ")], damages.lines()].concat().join("\n")
}
