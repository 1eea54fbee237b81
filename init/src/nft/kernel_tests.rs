//! Against the running kernel, each test in a network namespace of its own.
//! They need root and the program `nft`, and are skipped without.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sched::{CloneFlags, unshare};

use super::{apply, features, lower, print, raise, read, remove_native};
use crate::args::Args;
use crate::config::{Config, Facts, env};
use crate::plan::Plan;
use crate::rule::Rule;

/// Runs a test where it can break nothing.
fn in_namespace(test: impl FnOnce() + Send) {
    let has_nft = Command::new("nft").arg("--version").output().is_ok();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if !has_nft || !nix::unistd::geteuid().is_root() || unshare(CloneFlags::CLONE_NEWNET).is_err() {
                println!("skipped: needs root and nft");
                return;
            }
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs a program, feeds it, and returns what it printed.
fn run(command: &str, input: &str) -> String {
    let mut words = command.split_ascii_whitespace();
    let mut child = Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command}: {}\n{input}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn nft(text: &str) {
    run("nft -f -", text);
}

/// What `nft` sees, less blank lines.
fn listed() -> String {
    let text = run("nft -s list ruleset", "");
    text.lines().filter(|line| !line.trim().is_empty()).map(|line| format!("{line}\n")).collect()
}

fn facts(addresses: &[&str]) -> Facts {
    Facts {
        addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
        resolv_conf: Ok("nameserver 10.96.0.10\nnameserver fd00::a\n".to_owned()),
        ..Facts::default()
    }
}

fn plan_of(args: Args, addresses: &[&str]) -> Plan {
    let (args, only, _) = env::complete(args, |_| None);
    Plan::of(&Config::resolve(&args, &only, &facts(addresses)).unwrap())
}

/// What the injector asks for.
fn injected() -> Args {
    let text = |text: &str| Some(text.to_owned());
    Args {
        istio_inbound_interception_mode: text("REDIRECT"),
        istio_service_cidr: text("*"),
        istio_inbound_ports: text("*"),
        istio_local_exclude_ports: text("15090,15021"),
        ..Args::default()
    }
}

/// Everything at once.
fn everything(mode: &str) -> Args {
    let text = |text: &str| Some(text.to_owned());
    Args {
        istio_inbound_interception_mode: text(mode),
        istio_service_cidr: text("10.0.0.0/9,2001:db8::/33,0.0.0.0/0"),
        istio_service_exclude_cidr: text("10.1.0.0/16,10.2.3.4/32"),
        istio_inbound_ports: text("80,8000-8010"),
        istio_outbound_ports: text("443,1:3"),
        istio_local_outbound_ports_exclude: text("22,0-65535"),
        istio_exclude_interfaces: text("net+,eth9"),
        kube_virt_interfaces: text("vm1,vm2"),
        proxy_uid: text("3,1000-1999"),
        proxy_gid: text("1,2000-2999"),
        redirect_dns: Some(true),
        drop_invalid: Some(true),
        dual_stack: Some(true),
        ..Args::default()
    }
}

const BOTH: [&str; 2] = ["10.9.0.5", "fd00:9::5"];

/// The rules that `nft` sees are those of the plan, and so are those that are read.
fn assert_in_force(plan: &Plan) {
    let wanted = lower::lower(plan);
    let listed = listed();
    for table in &wanted.tables {
        for chain in &table.chains {
            let begin = format!("\tchain {} {{\n", chain.name);
            let begin = listed.split(&format!("table inet {} {{", table.name)).nth(1).unwrap().split(&begin);
            let block = begin.clone().nth(1).unwrap_or_else(|| panic!("no {} in {listed}", chain.name));
            let block = block.split("\t}\n").next().unwrap();
            let lines: Vec<&str> =
                block.lines().map(str::trim).filter(|it| !it.starts_with("type ")).collect();
            assert_eq!(lines, chain.rules.iter().map(print::rule).collect::<Vec<_>>(), "{listed}");
        }
    }
    let live = read::live().unwrap();
    assert!(!live.has_iptables_rules());
    assert_eq!(live.ours.len(), wanted.len());
    for table in &wanted.tables {
        assert!(live.ours.table(&table.name).unwrap().is_same(table), "{live:?}\n\n{wanted:?}");
    }
    assert_eq!(live.ours.tables.len(), wanted.tables.len());
}

#[test]
fn rules_are_listed_as_printed_and_a_second_run_changes_nothing() {
    in_namespace(|| {
        for args in [injected(), everything("REDIRECT"), everything("TPROXY"), Args::default()] {
            for addresses in [&BOTH[..1], &BOTH[1..], &BOTH] {
                let plan = plan_of(args.clone(), addresses);
                apply(&Plan::default(), false).unwrap();
                let outcome = apply(&plan, false).unwrap();
                assert!(outcome.changed && outcome.rules > 5, "{outcome:?}");
                assert_in_force(&plan);
                assert!(!apply(&plan, false).unwrap().changed);
                assert!(apply(&plan, true).unwrap().changed, "--force-apply");
                assert_in_force(&plan);
            }
        }
        assert!(apply(&Plan::default(), false).unwrap().changed);
        assert_eq!(listed(), "");
        assert!(!apply(&Plan::default(), false).unwrap().changed);
    });
}

#[test]
fn the_default_rules_are_those_of_the_original() {
    in_namespace(|| {
        apply(&plan_of(injected(), &BOTH[..1]), false).unwrap();
        let expected = "\
table inet istio-proxy-nat {
	chain istio-redirect {
		meta l4proto tcp counter redirect to :15001
	}
	chain istio-in-redirect {
		meta l4proto tcp counter redirect to :15006
	}
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		meta l4proto tcp counter jump istio-inbound
	}
	chain istio-inbound {
		tcp dport 15008 counter return
		tcp dport 15090 counter return
		tcp dport 15021 counter return
		meta l4proto tcp counter jump istio-in-redirect
	}
	chain output {
		type nat hook output priority -100; policy accept;
		counter jump istio-output
	}
	chain istio-output {
		oifname \"lo\" ip saddr 127.0.0.6 counter return
		oifname \"lo\" ip daddr != 127.0.0.1 tcp dport != 15008 meta skuid 1337 counter jump istio-in-redirect
		oifname \"lo\" meta skuid != 1337 counter return
		meta skuid 1337 counter return
		oifname \"lo\" ip daddr != 127.0.0.1 tcp dport != 15008 meta skgid 1337 counter jump istio-in-redirect
		oifname \"lo\" meta skgid != 1337 counter return
		meta skgid 1337 counter return
		ip daddr 127.0.0.1 counter return
		counter jump istio-redirect
	}
}
";
        assert_eq!(listed(), expected);
    });
}

#[test]
fn what_is_printed_is_what_nft_would_apply() {
    in_namespace(|| {
        for args in [injected(), everything("REDIRECT"), everything("TPROXY")] {
            for addresses in [&BOTH[..1], &BOTH] {
                let plan = plan_of(args.clone(), addresses);
                let text = print::ruleset(&lower::lower(&plan));
                run("nft -c -f -", &text);
                nft(&text);
                assert_in_force(&plan);
                assert!(!apply(&plan, false).unwrap().changed, "the same, byte for byte");
                apply(&Plan::default(), false).unwrap();
            }
        }
    });
}

#[test]
fn ipv6_is_guarded_where_it_is_off() {
    in_namespace(|| {
        let mut args = injected();
        let plan = plan_of(args.clone(), &BOTH);
        assert!(plan.guard);
        apply(&plan, false).unwrap();
        assert_in_force(&plan);
        assert_eq!(listed().matches("meta nfproto ipv6 return\n").count(), 2);
        args.dual_stack = Some(true);
        apply(&plan_of(args, &BOTH), false).unwrap();
        assert_eq!(listed().matches("meta nfproto ipv6 return\n").count(), 0);
    });
}

#[test]
fn drift_of_any_kind_is_repaired_and_foreign_tables_stay() {
    in_namespace(|| {
        let foreign = "table inet mine {\n\tchain c {\n\t\ttype filter hook input priority filter; policy accept;\n\t\ttcp dport 9999 counter accept\n\t}\n}\n";
        nft(foreign);
        let plan = plan_of(everything("TPROXY"), &BOTH);
        apply(&plan, false).unwrap();
        for drift in [
            "add rule inet istio-proxy-nat istio-inbound tcp dport 123 accept",
            "insert rule inet istio-proxy-nat output meta cpu 3 drop",
            "add chain inet istio-proxy-nat stranger",
            "add chain inet istio-proxy-nat stranger\nadd rule inet istio-proxy-nat output jump stranger",
            "add set inet istio-proxy-nat ports { type inet_service; }",
            "add map inet istio-proxy-nat m { type inet_service : verdict; elements = { 1 : jump istio-redirect }; }",
            "add chain inet istio-proxy-nat prerouting { policy drop; }",
            "add table inet istio-proxy-nat { flags dormant; }",
            "delete table inet istio-proxy-mangle",
            "delete table inet istio-proxy-raw\nadd table inet istio-proxy-raw\n\
             add chain inet istio-proxy-raw output { type filter hook output priority 7; }",
            "flush chain inet istio-proxy-mangle istio-inbound",
            "flush table inet istio-proxy-nat",
        ] {
            nft(drift);
            let outcome = apply(&plan, false).unwrap_or_else(|error| panic!("{drift}: {error}"));
            assert!(outcome.changed, "{drift}");
            assert_in_force(&plan);
            assert!(!apply(&plan, false).unwrap().changed, "{drift}");
            assert!(listed().contains(foreign), "{drift}");
        }
        apply(&Plan::default(), false).unwrap();
        assert_eq!(listed(), foreign);
    });
}

#[test]
fn other_configurations_converge() {
    in_namespace(|| {
        let plans = [
            plan_of(everything("TPROXY"), &BOTH),
            plan_of(injected(), &BOTH[..1]),
            plan_of(everything("REDIRECT"), &BOTH),
            plan_of(Args::default(), &BOTH[1..]),
            Plan::default(),
        ];
        for from in &plans {
            for to in &plans {
                apply(from, false).unwrap();
                assert_eq!(apply(to, false).unwrap().changed, from != to);
                assert_in_force(to);
            }
        }
    });
}

#[test]
fn rules_of_iptables_mode_are_replaced_and_foreign_ones_kept() {
    const SAVED: &str = "*nat
:ISTIO_OUTPUT - [0:0]
:ISTIO_REDIRECT - [0:0]
:KEEP - [0:0]
-A PREROUTING -p tcp -m tcp --dport 7 -j DNAT --to-destination 10.0.0.1
-A PREROUTING -i eth1 -j ISTIO_REDIRECT
-A PREROUTING -i eth1 -j RETURN
-A PREROUTING -i net+ -j RETURN
-A PREROUTING -p udp -j RETURN
-A OUTPUT -o net1 -j RETURN
-A OUTPUT -j ISTIO_OUTPUT
-A OUTPUT -j KEEP
-A KEEP -j ISTIO_REDIRECT
-A KEEP -o eth3 -j ACCEPT
-A ISTIO_OUTPUT -o lo -p tcp -m owner --uid-owner 1337 -j ISTIO_REDIRECT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
COMMIT
*filter
-A INPUT -p tcp -j DROP
COMMIT
";
    in_namespace(|| {
        for plan in [plan_of(injected(), &BOTH), Plan::default()] {
            for program in ["iptables-nft-restore --noflush", "ip6tables-nft-restore --noflush"] {
                run(
                    program,
                    &SAVED.replace("10.0.0.1", if program.contains('6') { "fd00::1" } else { "10.0.0.1" }),
                );
            }
            assert!(read::live().unwrap().has_iptables_rules());
            assert!(apply(&plan, false).unwrap().changed);
            for program in ["iptables-nft-save", "ip6tables-nft-save"] {
                let saved = run(program, "");
                let rules: Vec<&str> = saved.lines().filter(|line| line.starts_with("-A ")).collect();
                assert!(!saved.contains("ISTIO"), "{saved}");
                assert_eq!(rules.len(), 5, "{saved}");
                assert!(saved.contains("DNAT") && saved.contains(":KEEP"), "{saved}");
                assert!(saved.contains("-A PREROUTING -p udp -j RETURN"), "{saved}");
                assert!(
                    saved.contains("-A OUTPUT -j KEEP") && saved.contains("-o eth3 -j ACCEPT"),
                    "{saved}"
                );
            }
            assert!(!apply(&plan, false).unwrap().changed);
            for program in ["iptables-nft", "ip6tables-nft"] {
                for table in ["nat", "filter"] {
                    run(&format!("{program} -t {table} -F"), "");
                }
                run(&format!("{program} -t nat -X"), "");
            }
        }
    });
}

#[test]
fn long_changes_pass() {
    in_namespace(|| {
        let numbers = |range: std::ops::Range<u32>| {
            let numbers: Vec<String> = range.map(|number| (number * 2).to_string()).collect();
            numbers.join(",")
        };
        let args = Args {
            istio_inbound_ports: Some(numbers(1..1000)),
            istio_local_outbound_ports_exclude: Some(numbers(1..500)),
            proxy_uid: Some(numbers(1..40)),
            ..injected()
        };
        let (args, mut only, _) = env::complete(args, |_| None);
        for groups in [numbers(1..64), "1,3-5,".to_owned() + &numbers(50..111)] {
            only.owner_groups = groups;
            let plan = Plan::of(&Config::resolve(&args, &only, &facts(&BOTH)).unwrap());
            let outcome = apply(&plan, false).unwrap();
            assert!(outcome.rules > 2000, "{outcome:?}");
            assert_in_force(&plan);
            assert!(!apply(&plan, false).unwrap().changed);
        }
        assert!(listed().contains("meta skgid != { 1, 3-5, 100, 102,"), "{}", listed());
    });
}

#[test]
fn only_native_tables_are_removed_for_iptables_mode() {
    in_namespace(|| {
        assert!(!super::has_ours().unwrap());
        assert!(!remove_native().unwrap());
        apply(&plan_of(injected(), &BOTH), false).unwrap();
        run("iptables-nft -t nat -N ISTIO_X", "");
        assert!(super::has_ours().unwrap());
        assert!(remove_native().unwrap());
        assert!(!super::has_ours().unwrap());
        assert!(run("iptables-nft-save", "").contains(":ISTIO_X"));
    });
}

#[test]
fn other_writers_do_not_disturb() {
    in_namespace(|| {
        let plan = plan_of(everything("TPROXY"), &BOTH);
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // A thread is born into the network namespace of its parent.
            let writer = scope.spawn(|| {
                let mut number = 0;
                // Also when a panic below ends this test.
                while !is_done.load(Ordering::Relaxed) && number < 2000 {
                    nft(&format!("add table inet other{number}\ndelete table inet other{number}"));
                    number += 1;
                }
                number
            });
            let outcomes: Vec<_> = (0..100).map(|_| (apply(&plan, true), apply(&plan, false))).collect();
            is_done.store(true, Ordering::Relaxed);
            assert!(writer.join().unwrap() > 1);
            for (forced, again) in outcomes {
                assert!(forced.unwrap().changed);
                assert!(!again.unwrap().changed);
            }
        });
        assert_in_force(&plan);
    });
}

#[test]
fn what_is_refused_is_named() {
    in_namespace(|| {
        let mut plan = plan_of(injected(), &BOTH);
        plan.tables[0].chains[0].rules.push(Rule::jump("ISTIO_NOWHERE"));
        let error = apply(&plan, false).unwrap_err().to_string();
        assert!(error.contains("rule `counter jump istio-nowhere` of chain istio-redirect"), "{error}");
        assert!(error.contains("nothing was changed"), "{error}");
        assert_eq!(listed(), "");
    });
}

#[test]
fn nothing_is_missing_here_and_nothing_is_written_to_find_out() {
    in_namespace(|| {
        for args in [everything("TPROXY"), everything("REDIRECT"), injected()] {
            let plan = plan_of(args, &BOTH);
            assert_eq!(features::missing(&plan, true).unwrap(), []);
            assert_eq!(features::missing(&plan, false).unwrap(), []);
            assert_eq!(listed(), "");
        }
        apply(&plan_of(injected(), &BOTH), false).unwrap();
        let before = listed();
        assert_eq!(features::missing(&plan_of(everything("TPROXY"), &BOTH), true).unwrap(), []);
        assert_eq!(listed(), before);
    });
}

#[test]
fn live_rules_are_raised_to_those_of_the_plan() {
    in_namespace(|| {
        let plan = plan_of(everything("TPROXY"), &BOTH);
        apply(&plan, false).unwrap();
        nft("add rule inet istio-proxy-nat istio-output meta cpu 3 counter drop");
        let raised = raise::raise(&read::ours().unwrap());
        let rules: Vec<_> = raised.iter().flat_map(|chain| &chain.rules).collect();
        assert_eq!(rules.iter().filter(|rule| rule.is_err()).count(), 1, "{rules:?}");
        assert!(rules.contains(&&Err("<meta> <cmp> counter drop".to_owned())), "{rules:?}");
    });
}
