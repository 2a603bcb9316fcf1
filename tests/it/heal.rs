//! What a killed lab left is undone by the verb, exactly and once.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::lab::{Called, is_alive, scalelab, scratch, signal, until, write};

/// A process that waits for its standard input, and goes with the test.
struct Waiting(Child);

impl Waiting {
    fn start() -> Self {
        Self(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat is there"))
    }

    fn stopped() -> Self {
        let waiting = Self::start();
        signal(waiting.0.id(), "STOP");
        until("it is stopped", || field(waiting.0.id(), 0) == "T");
        waiting
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A field of what the kernel says of a process, counted from its state.
fn field(id: u32, index: usize) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("the process is there");
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(index).unwrap().to_owned()
}

fn start_time(id: u32) -> String {
    field(id, 19)
}

fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap().trim().to_owned()
}

fn journal(state: &Path, lab: (u32, String), left: &Waiting, folder: &Path) {
    let (pid, since) = lab;
    let (left, left_since) = (left.0.id(), start_time(left.0.id()));
    let text = format!(
        "{{\"lab\":{{\"pid\":{pid},\"start_time\":{since},\"boot_id\":\"{}\",\"archive\":\"/runs/x\"}}}}\n\
         {{\"intend\":{{\"id\":0,\"intent\":{{\"what\":\"folder\",\"path\":\"{}\"}}}}}}\n\
         {{\"intend\":{{\"id\":1,\"intent\":{{\"what\":\"process\",\"pid\":{left},\"start_time\":{left_since},\
         \"role\":\"task-service\",\"replica\":1}}}}}}\n\
         {{\"intend\":{{\"id\":2,\"intent\":{{\"what\":\"paused\",\"pid\":{left},\"start_time\":{left_since}}}}}}}\n",
        boot(),
        folder.display()
    );
    std::fs::create_dir_all(state.join("scalelab")).unwrap();
    write(&state.join("scalelab"), "run.jsonl", &text);
}

fn heal(state: &Path, temp: &Path, arguments: &[&str]) -> Called {
    let mut command = scalelab();
    command.arg("heal").args(arguments).env("XDG_STATE_HOME", state).env("TMPDIR", temp);
    command.output().expect("the program starts").into()
}

#[test]
fn what_a_killed_lab_left_is_undone_once_and_said() {
    let (state, temp) = (scratch(), scratch());
    let folder = temp.path().join("scalelab-left");
    std::fs::create_dir(&folder).unwrap();
    let (left, other) = (Waiting::stopped(), Waiting::stopped());
    let dead = {
        let mut lab = Waiting::start();
        let id = (lab.0.id(), start_time(lab.0.id()));
        lab.0.kill().unwrap();
        lab.0.wait().unwrap();
        id
    };
    journal(state.path(), dead, &left, &folder);

    let dry = heal(state.path(), temp.path(), &["--dry-run"]);
    assert_eq!(dry.code, Some(0), "{}", dry.stderr);
    assert!(dry.stdout.lines().all(|line| line.starts_with("would ")), "{}", dry.stdout);
    assert!(is_alive(left.0.id()) && folder.exists());

    let healed = heal(state.path(), temp.path(), &[]);
    assert_eq!(healed.code, Some(0), "{}", healed.stderr);
    assert!(healed.stdout.contains("ended task-service 1"), "{}", healed.stdout);
    assert!(healed.stdout.contains("scalelab-left"), "{}", healed.stdout);
    assert!(!is_alive(left.0.id()) && !folder.exists());
    assert!(is_alive(other.0.id()), "what no journal names is left alone");

    let again = heal(state.path(), temp.path(), &[]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(0), "nothing to heal\n"));
}

#[test]
fn what_a_living_lab_has_is_left_alone_and_what_cannot_be_undone_is_exit_4() {
    let (state, temp) = (scratch(), scratch());
    let folder = scratch();
    let (left, lab) = (Waiting::stopped(), Waiting::start());
    journal(state.path(), (lab.0.id(), start_time(lab.0.id())), &left, folder.path());
    let healed = heal(state.path(), temp.path(), &[]);
    assert_eq!((healed.code, healed.stdout.as_str()), (Some(0), "nothing to heal\n"), "{}", healed.stderr);
    assert!(is_alive(left.0.id()));
    drop(lab);
    let healed = heal(state.path(), temp.path(), &[]);
    assert_eq!(healed.code, Some(4), "{}", healed.stdout);
    assert!(healed.stderr.contains("set TMPDIR"), "{}", healed.stderr);
    assert!(folder.path().exists() && !is_alive(left.0.id()), "the rest is undone");
}

#[test]
fn without_a_folder_for_the_journal_a_run_goes_on_and_one_with_faults_does_not() {
    let folder = scratch();
    let taken = write(folder.path(), "taken", "a file");
    let quick = "system = \"task-tracker\"\ndeployment = \"in-process\"\ntrials = 1\nwarmup = \"1s\"\nduration = \"2s\"\n\
                 [load]\nusers = 1\n[settings]\nargon2 = \"minimum\"\n";
    let fault = "[[fault]]\nat = \"1s\"\nkind = \"restart\"\nrole = \"monolith\"\n";
    for (name, text, code, said) in [
        ("plain.toml", quick.to_owned(), Some(0), "note: the journal of what must be undone cannot be written"),
        (
            "broken.toml",
            format!("{quick}{fault}"),
            Some(4),
            "error: the journal of what must be undone cannot be written",
        ),
    ] {
        let file = write(folder.path(), name, &text);
        let mut command = scalelab();
        command.args(["run", file.to_str().unwrap(), "--out", folder.path().join("runs").to_str().unwrap()]);
        let called: Called = command.env("XDG_STATE_HOME", &taken).output().unwrap().into();
        assert_eq!(called.code, code, "{name}: {}", called.stderr);
        assert!(called.stderr.contains(said), "{name}: {}", called.stderr);
    }
}
