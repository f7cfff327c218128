//! One step: draft, one forward over the rows of all sequences, commit.

use specexit_model::{KvCache, LogitRows, TargetRows};

use super::{Engine, MAX_DRAFT_TOKENS};
use crate::commit::{Forwarded, Place, Round, accept, commit_reading, commit_round};
use crate::depth::{Chain, depths};
use crate::draft::draft;
use crate::error::Result;
use crate::request::{Event, Finish, Output, Request};
use crate::sequence::Sequence;
use crate::signals::probe;

/// Rows that one sequence puts into a step.
pub(super) struct Rows {
    /// Index among the running sequences.
    sequence: usize,
    tokens: Vec<u32>,
    logits: LogitRows,
}

impl Engine {
    /// Drafts, and decides which rows each sequence puts into the forward.
    pub(super) fn schedule(&mut self) -> Result<Vec<Rows>> {
        if let Some(head) = &self.head {
            let rooms = self.rooms();
            draft(head, &mut self.running, &mut self.drafting, &rooms)?;
        }
        self.keep_prompts();
        let mut left = self.options.max_rows.max(MAX_DRAFT_TOKENS + 1);
        let mut rows = Vec::with_capacity(self.running.len());
        for (index, sequence) in self.running.iter().enumerate() {
            let unread = sequence.unread();
            let wanted = unread.len() + sequence.drafted.len();
            if sequence.at_root() {
                if wanted > left {
                    continue;
                }
                let drafts = sequence.drafted.iter().map(|d| d.token);
                let tokens = unread.iter().copied().chain(drafts).collect();
                rows.push(Rows { sequence: index, tokens, logits: LogitRows::All });
                left -= wanted;
            } else {
                let take = unread.len().min(left);
                if take == 0 {
                    continue;
                }
                let logits = if take == unread.len() { LogitRows::Last } else { LogitRows::None };
                rows.push(Rows { sequence: index, tokens: unread[..take].to_vec(), logits });
                left -= take;
            }
        }
        Ok(rows)
    }

    /// How many tokens each sequence drafts in this step.
    fn rooms(&self) -> Vec<usize> {
        let chain = |sequence: &Sequence| {
            let Request { method, draft_tokens, adaptive, .. } = sequence.request;
            let speculates = method.drafts() && sequence.at_root();
            let most = if speculates { draft_tokens.min(sequence.remaining() - 1) } else { 0 };
            let least = if adaptive { 0 } else { most };
            Chain { acceptance: sequence.acceptance, least, most }
        };
        let running = || self.running.iter();
        let mut rooms: Vec<usize> = running().map(|sequence| chain(sequence).most).collect();
        if let Some(costs) = &self.depth_costs
            && running().any(|sequence| sequence.request.adaptive)
        {
            let unread: usize = running().map(|sequence| sequence.unread().len()).sum();
            // Others are being read: they add rows and commit nothing.
            let committing = || running().enumerate().filter(|(_, sequence)| sequence.at_root());
            let chains: Vec<Chain> = committing().map(|(_, sequence)| chain(sequence)).collect();
            let elsewhere = self.elsewhere.of(self.running.len());
            let rows = unread.min(self.options.max_rows);
            let chosen = depths(costs, rows, elsewhere, &chains);
            for ((index, _), depth) in committing().zip(chosen) {
                rooms[index] = depth;
            }
        }
        rooms
    }

    /// What each sequence has drafted for this step, where all of them stand at a root.
    pub(super) fn drafted(&self) -> Option<Vec<usize>> {
        let at_root = |sequence: &Sequence| sequence.at_root().then_some(sequence.drafted.len());
        let drafted = || self.running.iter().map(at_root).collect();
        if self.depth_costs.is_some() && !self.running.is_empty() { drafted() } else { None }
    }

    /// Keeps the caches over prompts that have just been read, for others that come before these requests end.
    fn keep_prompts(&mut self) {
        for sequence in &mut self.running {
            if sequence.generated() == 0 || sequence.prompt_offered {
                continue;
            }
            sequence.prompt_offered = true;
            let prompt = &sequence.request.prompt;
            // The pair of the last state has a token that is not the prompt's.
            let pairs = if sequence.draft.is_some() { prompt.len() - 1 } else { 0 };
            if self.prefixes.wants(prompt, pairs) {
                self.prefixes.keep(sequence.prefix(prompt.len()));
            }
        }
    }

    /// One target forward over the rows of all sequences.
    pub(super) fn forward(&mut self, rows: &[Rows]) -> Result<Vec<Place>> {
        let (mut places, mut at, mut logits) = (Vec::with_capacity(rows.len()), 0, 0);
        let mut batch = Vec::with_capacity(rows.len());
        let mut wanted = rows.iter().peekable();
        for (index, sequence) in self.running.iter_mut().enumerate() {
            let Some(rows) = wanted.next_if(|rows| rows.sequence == index) else { continue };
            places.push(Place {
                rows: at..at + rows.tokens.len(),
                logits,
                verifies: rows.logits == LogitRows::All,
            });
            at += rows.tokens.len();
            logits += match rows.logits {
                LogitRows::None => 0,
                LogitRows::Last => 1,
                LogitRows::All => rows.tokens.len(),
            };
            let cache = &mut sequence.cache;
            batch.push(TargetRows { tokens: &rows.tokens, cache, logits: rows.logits });
        }
        if !batch.is_empty() {
            self.target.forward(&mut batch, &mut self.workspace)?;
        }
        Ok(places)
    }

    /// Commits every sequence's part and takes out those that ended.
    pub(super) fn commit(&mut self, rows: &[Rows], places: &[Place]) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        let mut rounds = self.rounds(rows, places)?.into_iter().peekable();
        for (rows, place) in rows.iter().zip(places) {
            let sequence = &mut self.running[rows.sequence];
            let before = sequence.generated();
            let mut signals = Vec::new();
            match rounds.next_if(|round| round.sequence == rows.sequence) {
                Some(round) => signals = commit_round(sequence, round, &self.workspace),
                None => {
                    let workspace = &self.workspace;
                    let (head, probs) = (self.head.as_deref(), &mut self.probs);
                    commit_reading(sequence, place, Forwarded { workspace, head, probs });
                }
            }
            events.extend(sequence.news(before));
            let recorded = sequence.request.record_signals;
            if recorded && signals.iter().any(|signals| !signals.is_missing()) {
                // The first are the root's, which the round before has committed.
                events.push(Event::Signals { id: sequence.id, first: before - 1, signals });
            }
        }
        let ended: Vec<Sequence> = self.running.extract_if(.., |s| s.finish.is_some()).collect();
        for sequence in ended {
            let finish = sequence.finish.unwrap_or(Finish::Stop);
            events.push(Event::Done(Box::new(self.ended(sequence, finish))));
        }
        if rows.len() < self.running.len() {
            // Somebody found no room in this step: another one goes first in the next.
            self.running.rotate_left(1);
        }
        Ok(events)
    }

    /// The output of a sequence that runs no more; what it has read is kept for prompts that begin so.
    pub(super) fn ended(&mut self, sequence: Sequence, finish: Finish) -> Output {
        let (output, read) = sequence.end(finish);
        let pairs = read.draft.as_ref().map_or(0, KvCache::len);
        if self.prefixes.wants(&read.tokens, pairs) {
            self.prefixes.keep(read);
        }
        output
    }

    /// What the target accepts of each sequence's drafts, with the signals of these runs.
    fn rounds(&mut self, rows: &[Rows], places: &[Place]) -> Result<Vec<Round>> {
        let mut rounds = Vec::with_capacity(rows.len());
        for (rows, place) in rows.iter().zip(places).filter(|(_, place)| place.verifies) {
            let sequence = &mut self.running[rows.sequence];
            let workspace = &self.workspace;
            let (head, probs) = (self.head.as_deref(), &mut self.probs);
            let forwarded = Forwarded { workspace, head, probs };
            rounds.push(accept(sequence, rows.sequence, place, forwarded));
        }
        if let Some(head) = &self.head {
            probe(head, &self.workspace, &mut self.running, &mut rounds, &mut self.drafting)?;
        }
        Ok(rounds)
    }
}
