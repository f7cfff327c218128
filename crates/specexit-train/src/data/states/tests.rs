//! States stored, cut, damaged and computed.

use super::*;
use crate::data::testing::{ToySource, toy_examples};
use crate::progress::Silent;

use crate::data::examples::Example;

/// The toy's states, with the examples and the source that they borrow.
struct Toy {
    folder: tempfile::TempDir,
    examples: Vec<Example>,
    source: ToySource,
}

impl Toy {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut examples = toy_examples(5);
        // Boundaries only, and none at all.
        examples[1].labels.retain(|l| l.position % 2 == 0);
        examples[2].labels.clear();
        Self { folder, examples, source: ToySource::new(8, 30) }
    }

    fn build(&self, content: Content, hash: &str, cap: f64) -> Result<States<'_, ToySource>> {
        let (folder, source) = (self.folder.path(), &self.source);
        States::build(folder, &self.examples, source, content, hash, cap, &mut Silent)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("states.bin")
    }

    /// GB that the first `sequences` need.
    fn cap(&self, content: Content, sequences: usize) -> f64 {
        let bytes: usize = self.examples[..sequences].iter().map(|e| content.bytes(e, 8)).sum();
        // Half a byte more: a product in floating point may fall below.
        (bytes as f64 + 0.5) / 1e9
    }
}

fn read(states: &States<'_, ToySource>, index: usize) -> Result<SequenceStates> {
    let mut read = SequenceStates::default();
    // A longer one before must leave nothing behind.
    states.read(4, &mut read)?;
    states.read(index, &mut read)?;
    Ok(read)
}

fn read_labelled(states: &States<'_, ToySource>, index: usize) -> Vec<f32> {
    let mut read = LabelledStates::default();
    states.read_labelled(4, &mut read).unwrap();
    states.read_labelled(index, &mut read).unwrap();
    read.taps
}

#[test]
fn a_cut_file_is_completed_to_the_same_bytes() {
    for content in [Content::Whole, Content::Labelled] {
        let toy = Toy::new();
        let third = read_labelled(&toy.build(content, "h", 1.0).unwrap(), 3);
        let whole = std::fs::read(toy.file()).unwrap();
        for keep in [0, 1, whole.len() / 2, whole.len() - 1] {
            std::fs::write(toy.file(), &whole[..keep]).unwrap();
            let states = toy.build(content, "h", 1.0).unwrap();
            assert_eq!(std::fs::read(toy.file()).unwrap(), whole);
            assert_eq!(read_labelled(&states, 3), third);
        }
    }
}

#[test]
fn stored_or_not_the_bits_are_the_same() {
    let toy = Toy::new();
    let all = toy.build(Content::Whole, "h", 1.0).unwrap();
    let whole: Vec<_> = (0..5).map(|i| read(&all, i).unwrap()).collect();
    let labelled: Vec<_> = (0..5).map(|i| read_labelled(&all, i)).collect();
    drop(all);
    assert!(labelled[2].is_empty() && !labelled[1].is_empty());
    for (example, (whole, labelled)) in toy.examples.iter().zip(whole.iter().zip(&labelled)) {
        let rows = example.labels.iter().map(|l| &whole.taps[l.position * 24..][..24]);
        assert_eq!(&rows.collect::<Vec<_>>().concat(), labelled);
    }
    // Less room and more, over what the last cap left.
    for content in [Content::Whole, Content::Labelled] {
        drop(Toy::build(&toy, content, "h", 0.0).unwrap());
        for sequences in [2, 0, 5, 3] {
            let cap = toy.cap(content, sequences);
            let states = toy.build(content, "h", cap).unwrap();
            assert_eq!(states.starts.len(), sequences);
            let size = std::fs::metadata(toy.file()).map_or(0, |m| m.len());
            assert_eq!(size as f64, (cap * 1e9).floor());
            for index in 0..5 {
                assert_eq!(read_labelled(&states, index), labelled[index]);
                if content == Content::Whole {
                    let found = read(&states, index).unwrap();
                    assert_eq!(found.taps, whole[index].taps);
                    assert_eq!(found.hidden, whole[index].hidden);
                    assert_eq!(found.most_probable, whole[index].most_probable);
                }
            }
        }
    }
}

#[test]
fn another_target_and_damage_are_named() {
    let toy = Toy::new();
    drop(toy.build(Content::Whole, "h", 1.0).unwrap());
    let error = toy.build(Content::Whole, "other", 1.0).err().unwrap().to_string();
    assert!(error.contains("target_hash = \"h\", but now it is \"other\""), "{error}");
    let error = toy.build(Content::Labelled, "h", 1.0).err().unwrap().to_string();
    assert!(error.contains("sequences_hash"), "{error}");
    let mut bytes = std::fs::read(toy.file()).unwrap();
    bytes[5] ^= 1;
    std::fs::write(toy.file(), &bytes).unwrap();
    let error = read(&toy.build(Content::Whole, "h", 1.0).unwrap(), 0).unwrap_err().to_string();
    assert!(error.contains("sequence 0 are damaged"), "{error}");
}

/// Keeps what is said.
#[derive(Default)]
struct Notes(String);

impl Progress for Notes {
    fn note(&mut self, line: &str) {
        self.0.push_str(line);
    }
}

#[test]
fn the_mode_and_its_room_are_told() {
    let toy = Toy::new();
    for (content, cap, expected) in [
        (Content::Whole, 1.0, "states: all 5 sequences on disk, 0.000 GB"),
        (Content::Labelled, 0.0, "states of labelled positions: none on disk (all would"),
        (Content::Whole, toy.cap(Content::Whole, 4), "states: 4 of 5 sequences on disk, "),
    ] {
        let (folder, mut notes) = (tempfile::tempdir().unwrap(), Notes::default());
        let (examples, source) = (&toy.examples[..], &toy.source);
        States::build(folder.path(), examples, source, content, "h", cap, &mut notes).unwrap();
        assert!(notes.0.starts_with(expected), "{}", notes.0);
    }
}
