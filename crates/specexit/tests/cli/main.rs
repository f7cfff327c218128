//! The program from outside: whole outputs, exit codes, and the whole loop on a tiny model.
#![allow(clippy::unwrap_used, reason = "a test may fail by panicking")]

mod bad_input;
mod bench;
mod browser;
mod calibrate;
mod demo;
mod endpoint;
mod eval;
mod eval_page;
mod fixture;
mod generate;
mod help;
mod inspect;
mod kill;
mod kill_train;
mod loop_on_a_tiny_model;
mod run;
mod serve;
