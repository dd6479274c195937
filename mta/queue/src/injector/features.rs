//! What is added to envelopes: further recipients, quarantine, header lines.

use std::io::Read;

use crate::envelope::{ADDRESS_MAX, Item, Record};
use crate::exit::Code;
use crate::inject::{Envelope, Failure};

use super::place::{Caller, controls};
use super::variables::Variables;

/// Original recipients that a quarantined message names, in bytes of header; more are counted only.
const ORIGINALS_MAX: usize = 256 * 1024;

/// The additions for this message.
#[derive(Debug, Default)]
pub struct Features {
    /// Recipients before the real ones.
    extra: Vec<Vec<u8>>,
    /// Recipients instead of the real ones.
    quarantine: Vec<Vec<u8>>,
    /// Header lines for the delivered message.
    header: Vec<u8>,
}

impl Features {
    /// From EXTRAQUEUE, QUARANTINE and QQEH or their control files; nothing with FASTQUEUE.
    pub fn load(variables: &Variables, caller: &Caller) -> Result<Self, Failure> {
        if variables.is_fast() {
            return Ok(Self::default());
        }
        let mut header = variables.value("QQEH").unwrap_or_default().to_vec();
        if !header.is_empty() && !header.ends_with(b"\n") {
            header.push(b'\n');
        }
        Ok(Self {
            extra: addresses(variables, caller, "EXTRAQUEUE", "extraqueue")?,
            quarantine: addresses(variables, caller, "QUARANTINE", "quarantine")?,
            header,
        })
    }

    /// Reads a client's envelope and writes ours.
    pub fn copy(&self, envelope: &mut Envelope<'_>, source: &mut impl Read) -> Result<(), Failure> {
        let (mut originals, mut left_out) = (Vec::new(), 0u64);
        envelope.read(source, |envelope, item| match item {
            Item::Sender(sender) => {
                envelope.record(Record::Sender(sender))?;
                self.extra
                    .iter()
                    .chain(&self.quarantine)
                    .try_for_each(|r| envelope.record(Record::Recipient(r)))
            }
            Item::Recipient(recipient) if self.quarantine.is_empty() => {
                envelope.record(Record::Recipient(recipient))
            }
            Item::Recipient(recipient) => {
                if originals.len() < ORIGINALS_MAX {
                    originals.push(b',');
                    originals.extend(recipient.iter().map(|b| if b.is_ascii_control() { b'_' } else { *b }));
                } else {
                    left_out += 1;
                }
                Ok(())
            }
            Item::End => Ok(()),
        })?;
        let quarantined = self.quarantine_field(&originals, left_out);
        let header = [&quarantined[..], &self.header].concat();
        if !header.is_empty() {
            envelope.record(Record::ExtraHeader(&header))?;
        }
        // The delivery has it as a variable too.
        if quarantined.is_empty() { Ok(()) } else { envelope.record(Record::Exported(&quarantined)) }
    }

    /// The line that names quarantine and original recipients; empty without quarantine.
    fn quarantine_field(&self, originals: &[u8], left_out: u64) -> Vec<u8> {
        let mut field = Vec::new();
        if !self.quarantine.is_empty() {
            field.extend_from_slice(b"X-Quarantine-ID: ");
            field.extend_from_slice(&self.quarantine.join(&b","[..]));
            field.extend_from_slice(originals);
            if left_out > 0 {
                field.extend_from_slice(format!(",(and {left_out} more)").as_bytes());
            }
            field.push(b'\n');
        }
        field
    }
}

/// The variable's value as the only entry; nothing when it is set to nothing; else the control file's lines.
fn addresses(
    variables: &Variables,
    caller: &Caller,
    variable: &str,
    file: &str,
) -> Result<Vec<Vec<u8>>, Failure> {
    let entries = match variables.value(variable) {
        Some(value) => vec![value.to_vec()],
        None if variables.is_set(variable) => Vec::new(),
        None => {
            let list = controls(variables, caller)?.list(file);
            list.map_err(|e| Failure::new(Code::CONFIGURATION, e.to_string()))?.unwrap_or_default()
        }
    };
    // FIX-7: what todo-proc could not read must not get into an envelope.
    if entries.iter().any(|e| e.len() > ADDRESS_MAX || e.iter().any(u8::is_ascii_control)) {
        return Err(Failure::new(
            Code::CONFIGURATION,
            format!("{file}: an entry is too long or holds a control byte"),
        ));
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_set_to_nothing_switches_the_control_file_off() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("extraqueue"), "log@x\n# no\nkeep@x\n").unwrap();
        let control = ("CONTROLDIR", dir.path().to_str().unwrap());
        let load = |pairs: &[(&'static str, &str)]| {
            Features::load(&Variables::from(pairs), &Caller::of_this_process()).map(|f| f.extra)
        };
        assert_eq!(load(&[control]).unwrap(), [b"log@x".to_vec(), b"keep@x".to_vec()]);
        assert_eq!(load(&[control, ("EXTRAQUEUE", "me@y")]).unwrap(), [b"me@y".to_vec()]);
        assert!(load(&[control, ("EXTRAQUEUE", "")]).unwrap().is_empty());
        assert!(load(&[control, ("FASTQUEUE", "1")]).unwrap().is_empty());
        assert_eq!(load(&[("EXTRAQUEUE", "a\nb")]).unwrap_err().code, Code::CONFIGURATION);
    }
}
