//! Word problems: a number of things that changes several times.

use crate::dice::Dice;
use crate::people::{NAMES, object, subject};
use crate::work::{Op, Work};

const THINGS: [&str; 10] =
    ["apples", "books", "coins", "cards", "stones", "eggs", "pens", "shells", "stamps", "marbles"];

/// What happens to the things.
#[derive(Clone, Copy, Debug)]
enum Event {
    Buys(i64),
    Finds(i64),
    Given(i64),
    Loses(i64),
    Sells(i64),
    GivesAway(i64),
    Doubles,
    Triples,
    Boxes { boxes: i64, each: i64 },
}

/// A story.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    name: usize,
    thing: usize,
    start: i64,
    events: Vec<Event>,
}

impl Story {
    /// A story of `difficulty + 1` events.
    pub(crate) fn generate(difficulty: u8, dice: &mut Dice) -> Self {
        let (name, thing) = (dice.below(NAMES.len()), dice.below(THINGS.len()));
        let start = dice.within(2..=49);
        let mut now = start;
        let mut events = Vec::new();
        while events.len() <= usize::from(difficulty) {
            let event = Self::event(now, dice);
            let mut work = Work::new(None);
            let next = Self::step(&mut work, "", event, now);
            if work.valid && next > 0 {
                events.push(event);
                now = next;
            }
        }
        Self { name, thing, start, events }
    }

    fn event(now: i64, dice: &mut Dice) -> Event {
        match dice.below(10) {
            0 | 1 => Event::Buys(dice.within(2..=49)),
            2 => Event::Finds(dice.within(2..=39)),
            3 => Event::Given(dice.within(2..=39)),
            4 => Event::Loses(dice.within(2..=now.max(3))),
            5 => Event::Sells(dice.within(2..=now.max(3))),
            6 => Event::GivesAway(dice.within(2..=now.max(3))),
            7 => Event::Doubles,
            8 => Event::Triples,
            _ => Event::Boxes { boxes: dice.within(2..=6), each: dice.within(2..=9) },
        }
    }

    /// The event as the story tells it, without the full stop.
    fn told(&self, event: Event) -> String {
        let (he, him) = (subject(self.name), object(self.name));
        match event {
            Event::Buys(n) => format!("{he} buys {n} more"),
            Event::Finds(n) => format!("{he} finds {n} more"),
            Event::Given(n) => format!("A friend gives {him} {n}"),
            Event::Loses(n) => format!("{he} loses {n}"),
            Event::Sells(n) => format!("{he} sells {n} of them"),
            Event::GivesAway(n) => format!("{he} gives {n} away"),
            Event::Doubles => "Then the number doubles".to_owned(),
            Event::Triples => "Then the number triples".to_owned(),
            Event::Boxes { boxes, each } => format!("{he} buys {boxes} boxes of {each}"),
        }
    }

    /// Writes an event's lines; `before` is how they begin.
    fn step(work: &mut Work, before: &str, event: Event, now: i64) -> i64 {
        match event {
            Event::Buys(n) | Event::Finds(n) | Event::Given(n) => {
                work.calc(before, now, Op::Add, n, ".")
            }
            Event::Loses(n) | Event::Sells(n) | Event::GivesAway(n) => {
                work.calc(before, now, Op::Sub, n, ".")
            }
            Event::Doubles => work.calc(before, now, Op::Mul, 2, "."),
            Event::Triples => work.calc(before, now, Op::Mul, 3, "."),
            Event::Boxes { boxes, each } => {
                let more = work.calc(before, boxes, Op::Mul, each, ".");
                work.calc("Together that is ", now, Op::Add, more, ".")
            }
        }
    }

    pub(crate) fn question(&self) -> String {
        let (name, things) = (NAMES[self.name], THINGS[self.thing]);
        let events: Vec<String> =
            self.events.iter().map(|event| format!(" {}.", self.told(*event))).collect();
        format!(
            "{name} has {} {things}.{} How many {things} does {name} have now?",
            self.start,
            events.concat()
        )
    }

    /// What the story is about; names and things do not make another problem of it.
    pub(crate) fn essence(&self) -> String {
        format!("words {} {:?}", self.start, self.events)
    }

    pub(crate) fn solve(&self, work: &mut Work) -> String {
        work.say(format!(
            "{} starts with {} {}.",
            NAMES[self.name], self.start, THINGS[self.thing]
        ));
        let mut now = self.start;
        for event in &self.events {
            now = Self::step(work, &format!("{}, so ", self.told(*event)), *event, now);
        }
        now.to_string()
    }

    pub(crate) fn doubt(&self) -> usize {
        self.thing % 5 + self.name % 3
    }
}
