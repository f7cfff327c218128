//! `serve`: the model over HTTP.

use anyhow::Context;
use specexit_engine::Method;
use specexit_problems::{Difficulty, Family, Problems, Split};
use specexit_serve::{Exits, Server};
use tokio::signal::unix::{SignalKind, signal};

use crate::assets;
use crate::high::{self, HeadChoice, engine_with};
use crate::output::print;

/// Questions that the page offers for the built-in reasoner.
const EXAMPLES: usize = 4;

pub(crate) fn serve(args: high::Serve) -> anyhow::Result<()> {
    let model = args.model.load()?;
    let mut engine = engine_with(&model, args.head.as_ref(), args.engine)?;
    engine.measure_depth_costs()?;
    let mut modes = vec![Method::Plain];
    modes.extend(args.head.as_ref().map(|_| Method::Eagle3));
    modes.extend(args.head.as_ref().filter(|head| head.has_probe).map(|_| Method::SpecExit));
    let calibration = args.head.as_ref().and_then(HeadChoice::calibration).transpose()?;
    let exits = Exits {
        modes,
        mode: args.mode,
        policy: args.policy,
        calibration: calibration.filter(|calibration| {
            calibration.model.hash == model.hash
                && calibration.arithmetic == model.target.kernels().arithmetic()
        }),
        head_hash: args.head.as_ref().map(HeadChoice::hash).transpose()?.unwrap_or_default(),
        loops: args.loops,
        stall: args.stall,
        closing_text: args.closing_text,
        draft_tokens: args.draft_tokens,
    };
    let mut options = args.options;
    if options.name.is_empty() {
        options.name.clone_from(&model.name);
    }
    if model.name == assets::REFERENCE {
        options.examples = examples();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // The engine has its own threads; answering clients needs few.
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the server cannot start its threads")?;
    runtime.block_on(async {
        let open = options.api_key.is_none() && !args.address.ip().is_loopback();
        let server = Server::start(args.address, engine, model.text(), exits, options).await?;
        let address = server.address()?;
        if open {
            eprintln!("warning: anyone who reaches {address} can ask; set SPECEXIT_API_KEY");
        }
        print(&format!("serving {} at http://{address}\n", model.name))?;
        server.run(ended()?).await?;
        Ok(())
    })
}

/// Ready once the process is told to end.
fn ended() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for Ctrl-C")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        eprintln!("ending: running answers may finish");
    })
}

/// One problem of each family, none of which it was trained on.
fn examples() -> Vec<String> {
    let levels = Difficulty::MIN..=Difficulty::MAX;
    let of = |family: &Family| Problems::new(&[*family], levels.clone(), Split::Test, 1).next();
    Family::ALL.iter().filter_map(of).take(EXAMPLES).map(|problem| problem.question).collect()
}
