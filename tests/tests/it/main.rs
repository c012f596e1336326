//! Whole-system tests. One binary: linking it once is most of what it costs.

mod api;
mod architecture;
mod batching;
mod binding;
mod client_gate;
mod command_line;
mod corpus;
mod docs;
mod endorsements;
mod epochs;
mod event_log;
mod floors;
mod fuzz_smoke;
mod gate;
mod gpu;
mod life;
mod peers;
mod privacy;
mod recipes;
mod release;
mod release_log;
mod round_trips;
mod snp_chain;
mod snp_corpus;
mod snp_report;
mod vectors;
