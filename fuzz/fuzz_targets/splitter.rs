//! Thought apart from answer, and stop strings: the pieces in which bytes come change nothing.

#![no_main]

use libfuzzer_sys::fuzz_target;
use specexit_exit::{Markers, Phase};
use specexit_exit::text::{Part, Splitter, Stops};

fuzz_target!(|data: (u8, Vec<String>, Vec<u8>, Vec<u8>)| {
    let (phase, stops, text, cuts) = data;
    let phase = [Phase::Before, Phase::Thinking, Phase::Answer][usize::from(phase % 3)];
    // Markers hardly ever come by chance: some letters stand for them.
    let mut bytes = Vec::with_capacity(text.len() * 3);
    for byte in text {
        match byte {
            b'A' => bytes.extend(b"<think>"),
            b'B' => bytes.extend(b"</think>"),
            b'C' => bytes.extend(b"</thi"),
            b'D' => bytes.extend("é😀".as_bytes()),
            other => bytes.push(other),
        }
    }
    let stops: Vec<String> = stops.into_iter().take(4).collect();
    let whole = read(phase, &stops, &[&bytes]);
    let mut pieces = Vec::new();
    let mut rest = &bytes[..];
    for cut in cuts {
        let (piece, after) = rest.split_at(usize::from(cut % 7).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    assert_eq!(read(phase, &stops, &pieces), whole);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(read(phase, &stops, &single), whole);
});

/// Thought and answer, the latter up to the first stop string.
fn read(phase: Phase, stops: &[String], pieces: &[&[u8]]) -> (String, String, bool) {
    let mut splitter = Splitter::new(&Markers::think(vec![1], vec![2]), phase);
    let mut watch = Stops::new(stops.to_vec());
    let (mut thought, mut answer) = (String::new(), String::new());
    let mut segments: Vec<_> = pieces.iter().flat_map(|piece| splitter.push(piece)).collect();
    segments.extend(splitter.finish());
    for segment in segments {
        match segment.part {
            Part::Thought => thought.push_str(&segment.text),
            Part::Marker => answer.push_str(&watch.finish()),
            Part::Answer => {
                let (text, stopped) = watch.push(&segment.text);
                answer.push_str(&text);
                if stopped {
                    return (thought, answer, true);
                }
            }
        }
    }
    answer.push_str(&watch.finish());
    (thought, answer, false)
}
