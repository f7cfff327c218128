//! Prints a few problems with thoughts: `cargo run -p specexit-problems --example show`.

use specexit_problems::{Difficulty, Problems, Split, ThoughtRules};

#[allow(clippy::print_stdout, reason = "printing is what it does")]
fn main() {
    let problems = Problems::new(&[], Difficulty::MIN..=Difficulty::MAX, Split::Train, 0);
    for (seed, problem) in problems.take(16).enumerate() {
        println!("[{} {}] {}", problem.family, problem.difficulty.level(), problem.question);
        println!("<think>\n{}</think>", problem.thought(&ThoughtRules::default(), seed as u64));
        println!("{}\n----", problem.stated_answer());
    }
}
