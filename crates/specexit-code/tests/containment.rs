//! Programs that must be contained, and what is reported of them.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use specexit_code::{Grade, Isolation, Limits, Outcome, Sandbox};

fn tight() -> Limits {
    Limits {
        wall: Duration::from_secs(30),
        cpu_seconds: 10,
        memory: 256 << 20,
        processes: 6,
        file: 1 << 20,
        files: 4 << 20,
        output: 256 << 10,
    }
}

fn succeeds(command: &[&str]) -> bool {
    Command::new(command[0]).args(&command[1..]).output().is_ok_and(|out| out.status.success())
}

/// A sandbox, or nothing with a message where this machine has no Python or permits no namespaces.
fn sandbox(limits: Limits) -> Option<Sandbox> {
    if !succeeds(&["python3", "--version"]) {
        eprintln!("skipped: python3 is not installed");
        return None;
    }
    let namespaces = ["unshare", "--user", "--map-root-user", "--mount", "--net", "true"];
    if !succeeds(&namespaces) {
        eprintln!("skipped: `{}` is not permitted here", namespaces.join(" "));
        return None;
    }
    let sandbox = Sandbox::new(Path::new("python3"), limits, Isolation::Namespaces);
    Some(sandbox.unwrap_or_else(|e| panic!("{e}")))
}

fn run(program: &str) -> Option<Grade> {
    Some(sandbox(tight())?.run(program))
}

#[track_caller]
fn failed_with(grade: &Grade, part: &str) {
    match &grade.outcome {
        Outcome::Failed { stderr } => assert!(stderr.contains(part), "{stderr}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_endless_loop_ends_with_the_wall_clock() {
    let limits = Limits { wall: Duration::from_secs(1), ..tight() };
    let Some(sandbox) = sandbox(limits) else { return };
    for program in ["while True: pass", "import time\nwhile True: time.sleep(1)"] {
        let start = Instant::now();
        assert_eq!(sandbox.run(program).outcome, Outcome::TimedOut, "{program}");
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    }
}

#[test]
fn an_endless_loop_ends_with_the_cpu_time() {
    let limits = Limits { wall: Duration::from_secs(60), cpu_seconds: 1, ..tight() };
    let Some(sandbox) = sandbox(limits) else { return };
    let stubborn = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass";
    for program in ["while True: pass", stubborn] {
        let grade = sandbox.run(program);
        assert_eq!(grade.outcome, Outcome::TimedOut, "{program}");
        assert!(grade.wall < Duration::from_secs(30), "{:?}", grade.wall);
    }
}

#[test]
fn processes_are_counted() {
    let children = |count: usize| {
        format!(
            "import os, time\n\
             for _ in range({count}):\n    \
                 if os.fork() == 0:\n        time.sleep(2)\n        os._exit(0)\n"
        )
    };
    let Some(few) = run(&children(3)) else { return };
    assert_eq!(few.outcome, Outcome::Passed);
    let Some(many) = run(&children(20)) else { return };
    failed_with(&many, "BlockingIOError");
}

#[test]
fn a_fork_bomb_dies_with_its_program() {
    let limits = Limits { wall: Duration::from_secs(4), ..tight() };
    let Some(sandbox) = sandbox(limits) else { return };
    // The name is seen from outside; each process leaves its session and its group.
    let name = format!("bomb{}", std::process::id());
    let bomb = format!(
        "import ctypes, os\n\
         ctypes.CDLL(None).prctl(15, b'{name}')\n\
         while True:\n    \
             try:\n        \
                 if os.fork() == 0: os.setsid()\n    \
             except OSError: pass\n"
    );
    let done = AtomicBool::new(false);
    let (grade, most) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(processes_named(&name));
                std::thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let grade = sandbox.run(&bomb);
        done.store(true, Ordering::Relaxed);
        (grade, watch.join().expect("no panic"))
    });
    assert_eq!(grade.outcome, Outcome::TimedOut);
    assert!((2..=6).contains(&most), "{most} processes were seen");
    assert_eq!(processes_named(&name), 0);
}

/// Living processes; one that has ended and was not waited for yet does not count.
fn processes_named(name: &str) -> usize {
    let folders = std::fs::read_dir("/proc").expect("/proc").flatten();
    let is_named = |status: String| {
        status.lines().any(|line| line.strip_prefix("Name:").is_some_and(|n| n.trim() == name))
            && !status.lines().any(|line| line.starts_with("State:") && line.contains('Z'))
    };
    folders
        .filter_map(|folder| std::fs::read_to_string(folder.path().join("status")).ok())
        .filter(|status| is_named(status.clone()))
        .count()
}

#[test]
fn sleeping_children_left_behind_end_with_the_program() {
    let name = format!("left{}", std::process::id());
    let program = format!(
        "import ctypes, os, time\n\
         ctypes.CDLL(None).prctl(15, b'{name}')\n\
         for _ in range(3):\n    \
             if os.fork() == 0:\n        \
                 os.setsid()\n        time.sleep(600)\n"
    );
    let Some(grade) = run(&program) else { return };
    assert_eq!(grade.outcome, Outcome::Passed);
    assert_eq!(processes_named(&name), 0);
}

#[test]
fn too_much_output_ends_the_run() {
    for stream in ["stdout", "stderr"] {
        let program = format!("import sys\nwhile True: sys.{stream}.write('many words ' * 1000)");
        let Some(grade) = run(&program) else { return };
        assert_eq!(grade.outcome, Outcome::TooMuchOutput, "{stream}");
    }
    let Some(grade) = run("print('many words ' * 10_000)") else { return };
    assert_eq!(grade.outcome, Outcome::Passed);
}

#[test]
fn memory_is_limited() {
    let slowly = "pieces = []\nwhile True: pieces.append(bytearray(1 << 20))";
    for program in ["bytearray(10 ** 10)", slowly] {
        let Some(grade) = run(program) else { return };
        assert_eq!(grade.outcome, Outcome::OutOfMemory, "{program}");
    }
    let Some(grade) = run("bytearray(50 << 20)") else { return };
    assert_eq!(grade.outcome, Outcome::Passed);
}

#[test]
fn files_outside_are_out_of_reach() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("secret"), "secret").expect("written");
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(folder.path(), open).expect("permitted");
    let place = folder.path().display();
    for (program, error) in [
        (format!("open('{place}/new', 'w')"), "FileNotFoundError"),
        (format!("open('{place}/secret').read()"), "FileNotFoundError"),
        (format!("import os\nos.remove('{place}/secret')"), "FileNotFoundError"),
        ("open('/usr/new', 'w')".to_owned(), "Error"),
        ("open('/etc/passwd').read()".to_owned(), "FileNotFoundError"),
        ("import os\nos.kill(1, 9)\nos.listdir('/proc')".to_owned(), "FileNotFoundError"),
        ("import os\nos.chroot('/tmp')".to_owned(), "PermissionError"),
        ("import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0".to_owned(), "Assert"),
    ] {
        let Some(grade) = run(&program) else { return };
        failed_with(&grade, error);
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("secret")).expect("there"), "secret");
    assert_eq!(std::fs::read_dir(folder.path()).expect("there").count(), 1);
}

#[test]
fn files_inside_are_limited_and_gone_afterwards() {
    let Some(sandbox) = sandbox(tight()) else { return };
    let write = "import os\nassert os.listdir('.') == []\nopen('a', 'w').write('b')";
    for _ in 0..2 {
        assert_eq!(sandbox.run(write).outcome, Outcome::Passed);
    }
    let huge = "file = open('a', 'wb')\nwhile True: file.write(b'0' * 65536)";
    failed_with(&sandbox.run(huge), "File too large");
    let many = "for i in range(100):\n    open(f'{i}', 'wb').write(b'0' * 900_000)";
    failed_with(&sandbox.run(many), "No space left");
    let scattered = "for i in range(100):\n    open(f'/tmp/{i}', 'wb').write(b'0' * 90_000)\n    \
         open(f'{i}', 'wb').write(b'0' * 90_000)";
    failed_with(&sandbox.run(scattered), "No space left");
}

#[test]
fn there_is_no_network() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let port = listener.local_addr().expect("an address").port();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    let _socket = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
    let unix =
        format!("import socket\nsocket.socket(socket.AF_UNIX).connect('{}')", path.display());
    let tcp = format!("import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)");
    let udp = "import socket\n\
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'a', ('192.0.2.1', 9))";
    for program in [tcp.as_str(), udp, unix.as_str()] {
        let Some(grade) = run(program) else { return };
        assert_eq!(grade.isolation, Isolation::Namespaces);
        failed_with(&grade, "Error");
    }
    assert_eq!(listener.accept().expect_err("nobody").kind(), ErrorKind::WouldBlock);
}

#[test]
fn nothing_is_inherited() {
    let program = "import os, sys\n\
        assert set(os.environ) <= {'PATH', 'LANG', 'HOME', 'TMPDIR', 'PYTHONHASHSEED', 'PWD',\n    \
            'OLDPWD', '_', 'SHLVL', 'LC_CTYPE'}, dict(os.environ)\n\
        assert sys.stdin.read() == ''\n\
        for number in range(3, 64):\n    \
            try: os.fstat(number)\n    \
            except OSError: continue\n    \
            raise AssertionError(number)\n";
    let Some(grade) = run(program) else { return };
    assert_eq!(grade.outcome, Outcome::Passed);
}

#[test]
fn ends_that_are_no_pass() {
    for (program, part) in [
        ("def f(:\n  pass", "SyntaxError"),
        ("raise ValueError('here')", "ValueError: here"),
        ("import sys\nsys.exit(0)", "ended itself"),
        ("import os\nos._exit(0)", ""),
        ("import os\nos.abort()", "signal 6"),
        ("import ctypes\nctypes.string_at(0)", "signal 11"),
        ("import os\nos.close(1)\nos.close(2)", ""),
        ("def f(): return f()\nf()", "RecursionError"),
        ("print('0' * 32 + ' passed')\nassert False", "AssertionError"),
        ("x = '\\ud800'\nprint(x)", "UnicodeEncodeError"),
    ] {
        let Some(grade) = run(program) else { return };
        failed_with(&grade, part);
    }
}

#[test]
fn what_cannot_be_run_is_said() {
    let missing = Sandbox::new(Path::new("/no/such/python"), tight(), Isolation::Namespaces);
    let error = missing.expect_err("no interpreter").to_string();
    assert!(error.contains("/no/such/python does not run"), "{error}");
    let other = Sandbox::new(Path::new("true"), tight(), Isolation::Namespaces);
    assert!(other.expect_err("no interpreter").to_string().contains("name a Python 3"));
    if sandbox(tight()).is_none() {
        return;
    }
    let limits = Limits { memory: 1 << 20, ..tight() };
    let error = Sandbox::new(Path::new("python3"), limits, Isolation::Namespaces)
        .expect_err("too little memory")
        .to_string();
    assert!(error.starts_with("the sandbox does not work here: "), "{error}");
    let long = format!("#{}", "a".repeat(2 << 20));
    let Some(grade) = run(&long) else { return };
    assert!(matches!(grade.outcome, Outcome::CannotRun { .. }), "{grade:?}");
}

#[test]
fn limits_alone_still_end_what_must_end() {
    let limits = Limits { wall: Duration::from_secs(5), ..tight() };
    // A superuser's child runs as nobody, who cannot read an interpreter in somebody's home.
    let found = ["python3", "/usr/bin/python3"].into_iter().find_map(|python| {
        Sandbox::new(Path::new(python), limits.clone(), Isolation::LimitsOnly).ok()
    });
    let Some(sandbox) = found else {
        eprintln!("skipped: no python3 that nobody can run");
        return;
    };
    let grade = sandbox.run("assert True");
    assert_eq!((grade.outcome, grade.isolation), (Outcome::Passed, Isolation::LimitsOnly));
    assert_eq!(sandbox.run("while True: pass").outcome, Outcome::TimedOut);
    assert_eq!(sandbox.run("bytearray(10 ** 10)").outcome, Outcome::OutOfMemory);
    assert_eq!(sandbox.run("while True: print('a' * 1000)").outcome, Outcome::TooMuchOutput);
    failed_with(&sandbox.run("import os\nos.fork()"), "BlockingIOError");
    failed_with(&sandbox.run("open('a', 'wb').write(b'0' * (2 << 20))"), "File too large");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let tcp = format!("import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)");
    // The network is within reach, which is why this is no default.
    assert_eq!(sandbox.run(&tcp).outcome, Outcome::Passed);
}
