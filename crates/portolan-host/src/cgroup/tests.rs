use proptest::prelude::*;

use super::*;

const ID: &str = "3f4c2a9be1d07c5588fe2b1f6a0d9c3e7b4851d2c6f0a9e8b7d6c5f4e3d2c1b0";
const OTHER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn units_are_found_in_paths() {
    let cases = [
        ("/", None),
        ("/init.scope", Some("init.scope")),
        ("/system.slice/nginx.service", Some("nginx.service")),
        (
            "/system.slice/system-getty.slice/getty@tty1.service",
            Some("getty@tty1.service"),
        ),
        ("/system.slice", None),
        (
            "/user.slice/user-1000.slice/session-2.scope",
            Some("session-2.scope"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-1234.scope",
            Some("app-firefox-1234.scope"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service",
            Some("syncthing.service"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/session.slice/dbus.service",
            Some("dbus.service"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/init.scope",
            Some("user@1000.service"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service",
            Some("user@1000.service"),
        ),
        // systemctl shows such names with their escapes; they are part of the name.
        (
            r"/system.slice/system-systemd\x2dfsck.slice/systemd-fsck@dev-disk-by\x2duuid-ab.service",
            Some(r"systemd-fsck@dev-disk-by\x2duuid-ab.service"),
        ),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.gnome.Terminal.slice/vte-spawn-5.scope",
            Some("vte-spawn-5.scope"),
        ),
        (
            "/system.slice/libvirtd.service/supervisor/x.scope",
            Some("libvirtd.service"),
        ),
        // systemd's escape for names that the kernel keeps for itself.
        ("/system.slice/_cpu.service", Some("cpu.service")),
        ("/system.slice/gone.service (deleted)", Some("gone.service")),
        ("/../../system.slice/cron.service", Some("cron.service")),
        ("/some/where/x.service", None),
        ("/.service", None),
        ("/a\u{1b}[31m.service", None),
    ];
    for (path, unit) in cases {
        assert_eq!(classify(path), (unit.map(str::to_owned), None), "{path}");
    }
}

#[test]
fn containers_are_found_in_paths() {
    let pod = "pod2b801b7a-2266-4d4f-8bb9-bd1d3a2b7f6d";
    let pod_slice = "kubepods-burstable-pod2b801b7a_2266_4d4f_8bb9_bd1d3a2b7f6d.slice";
    let user = "/user.slice/user-1000.slice/user@1000.service";
    let cases = [
        (format!("/docker/{ID}"), "docker", ID),
        (format!("/system.slice/docker-{ID}.scope"), "docker", ID),
        (format!("{user}/user.slice/docker-{ID}.scope"), "docker", ID),
        // The innermost of two counts.
        (format!("/docker/{ID}/docker/{OTHER}"), "docker", OTHER),
        (
            format!("/docker/{ID}/kubelet.slice/{pod_slice}/cri-containerd-{OTHER}.scope"),
            "containerd",
            OTHER,
        ),
        (format!("/machine.slice/libpod-{ID}.scope"), "podman", ID),
        (
            format!("/machine.slice/libpod-{ID}.scope/container"),
            "podman",
            ID,
        ),
        (format!("/machine.slice/libpod-conmon-{ID}.scope"), "podman", ID),
        (
            format!("/machine.slice/machine-libpod_pod_{OTHER}.slice/libpod-{ID}.scope"),
            "podman",
            ID,
        ),
        (
            format!("{user}/user.slice/libpod-{ID}.scope/container"),
            "podman",
            ID,
        ),
        (
            format!("{user}/user.slice/user-libpod_pod_{OTHER}.slice/libpod-{ID}.scope"),
            "podman",
            ID,
        ),
        (format!("/libpod_parent/libpod-{ID}"), "podman", ID),
        (
            format!("/system.slice/web.service/libpod-payload-{ID}"),
            "podman",
            ID,
        ),
        (format!("/system.slice/nerdctl-{ID}.scope"), "containerd", ID),
        (format!("/k8s.io/{ID}"), "containerd", ID),
        ("/default/web".to_owned(), "containerd", "web"),
        (
            format!("/kubepods.slice/kubepods-burstable.slice/{pod_slice}/cri-containerd-{ID}.scope"),
            "containerd",
            ID,
        ),
        (
            format!("/system.slice/containerd.service/{pod_slice}:cri-containerd:{ID}"),
            "containerd",
            ID,
        ),
        (
            format!("/kubepods.slice/kubepods-besteffort.slice/{pod_slice}/crio-{ID}.scope/container"),
            "cri-o",
            ID,
        ),
        (
            format!("/kubepods.slice/{pod_slice}/crio-conmon-{ID}.scope"),
            "cri-o",
            ID,
        ),
        (format!("/kubepods/besteffort/{pod}/crio-{ID}"), "cri-o", ID),
        (format!("/kubepods/burstable/{pod}/{ID}"), "kubernetes", ID),
        (format!("/kubepods/{pod}/{ID}"), "kubernetes", ID),
        (
            format!("/kubepods.slice/kubepods-burstable.slice/{pod_slice}/docker-{ID}.scope"),
            "docker",
            ID,
        ),
        (format!("/ecs/0f1e2d3c4b5a69788796a5b4c3d2e1f0/{ID}"), "ecs", ID),
        (
            "/ecs/0f1e2d3c4b5a69788796a5b4c3d2e1f0/0f1e2d3c4b5a69788796a5b4c3d2e1f0-3216549870".to_owned(),
            "ecs",
            "0f1e2d3c4b5a69788796a5b4c3d2e1f0-3216549870",
        ),
        ("/lxc/web-1".to_owned(), "lxc", "web-1"),
        ("/lxc/101/ns".to_owned(), "lxc", "101"),
        ("/lxc.payload.web-1".to_owned(), "lxc", "web-1"),
        ("/lxc.monitor.web-1".to_owned(), "lxc", "web-1"),
        (
            r"/machine.slice/systemd-nspawn@deb\x2d12.service/payload/init.scope".to_owned(),
            "systemd-nspawn",
            "deb-12",
        ),
        (
            r"/machine.slice/machine-debian\x2dbookworm.scope".to_owned(),
            "systemd-nspawn",
            "debian-bookworm",
        ),
        (
            r"/machine.slice/machine-qemu\x2d3\x2dwin11.scope/libvirt/emulator".to_owned(),
            "libvirt-qemu",
            "qemu-3-win11",
        ),
        (
            r"/machine.slice/machine-lxc\x2d812\x2dtest.scope".to_owned(),
            "libvirt-lxc",
            "lxc-812-test",
        ),
        (format!("/some-agent/{ID}"), "oci", ID),
    ];
    for (path, engine, id) in cases {
        let expected = Some(Container {
            engine,
            id: id.to_owned(),
        });
        assert_eq!(classify(&path).1, expected, "{path}");
    }
}

#[test]
fn what_only_looks_like_a_container_is_none() {
    for path in [
        "/system.slice/docker.service",
        "/system.slice/docker.socket",
        "/system.slice/containerd.service",
        "/system.slice/docker-compose.scope",
        "/system.slice/libpod-helper.service",
        "/docker",
        "/docker/buildx",
        "/lxc",
        "/lxc.payload.",
        "/machine.slice",
        "/kubepods.slice/kubepods-burstable.slice",
        "/system.slice/crio.service",
        "/ecs/0f1e2d3c4b5a69788796a5b4c3d2e1f0/agent",
    ] {
        assert_eq!(classify(path).1, None, "{path}");
    }
}

#[test]
fn a_container_has_the_unit_inside_it_or_its_own() {
    let cases = [
        (format!("/docker/{ID}"), None),
        (
            format!("/docker/{ID}/system.slice/nginx.service"),
            Some("nginx.service".to_owned()),
        ),
        (
            "/lxc.payload.web/system.slice/ssh.service".to_owned(),
            Some("ssh.service".to_owned()),
        ),
        (
            format!("/system.slice/docker-{ID}.scope"),
            Some(format!("docker-{ID}.scope")),
        ),
        (
            format!("/system.slice/docker-{ID}.scope/system.slice/cron.service"),
            Some("cron.service".to_owned()),
        ),
    ];
    for (path, unit) in cases {
        assert_eq!(classify(&path).0, unit, "{path}");
    }
}

#[test]
fn the_most_telling_hierarchy_is_chosen() {
    let cases: [(&str, Option<&str>); 7] = [
        ("0::/system.slice/a.service\n", Some("/system.slice/a.service")),
        (
            "4:cpu:/x\n1:name=systemd:/system.slice/b.service\n0::/system.slice/c.service\n",
            Some("/system.slice/c.service"),
        ),
        (
            "4:cpu:/x\n1:name=systemd:/system.slice/b.service\n0::/\n",
            Some("/system.slice/b.service"),
        ),
        ("4:cpu:/docker/1\n1:name=systemd:/\n", Some("/docker/1")),
        ("1:name=systemd:/\n0::/\n", Some("/")),
        ("0::/a:b:c\n", Some("/a:b:c")),
        ("", None),
    ];
    for (text, path) in cases {
        assert_eq!(place(text.as_bytes()).path, path.map(OsString::from), "{text}");
    }
}

#[test]
fn escapes_are_undone() {
    let cases = [
        (r"a\x2db", "a-b"),
        (r"\x2d", "-"),
        (r"\x2", r"\x2"),
        (r"\xzz", r"\xzz"),
        (r"\", r"\"),
        (r"\\x41", r"\A"),
        (r"\xff", "\u{fffd}"),
        ("", ""),
    ];
    for (name, expected) in cases {
        assert_eq!(unit::unescape(name), expected, "{name}");
    }
}

proptest! {
    #[test]
    fn any_text_is_survived(text in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = place(&text);
    }

    #[test]
    fn any_path_of_telling_parts_is_survived(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "docker", "lxc", "ecs", "default", "kubepods", "user@1.service", "a.slice", "..", "", ":", "::",
                "x:cri-containerd:0123456789ab", "machine-\\x.scope", "libpod-", "init.scope", "_", ".", "é.service",
            ]),
            0..8,
        )
    ) {
        let _ = classify(&parts.join("/"));
    }
}
