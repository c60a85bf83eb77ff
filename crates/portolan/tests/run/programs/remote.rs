//! Other machines: ssh, scp, git.

use crate::network::script_in_network;

#[test]
fn ssh_and_scp() {
    script_in_network(
        "programs::remote::ssh_and_scp",
        &["ssh", "scp", "sshd", "ssh-keygen"],
        r#"
        # A user with a shell, in this mount namespace alone.
        mkdir home && cd home
        printf 'root:x:0:0::%s:/bin/sh\nsailor:x:1000:1000::%s:/bin/sh\n' "$PWD" "$PWD" >passwd
        mount --bind passwd /etc/passwd
        ssh-keygen -q -t ed25519 -N '' -f host
        ssh-keygen -q -t ed25519 -N '' -f key
        cat >sshd_config <<END
HostKey $PWD/host
AuthorizedKeysFile $PWD/key.pub
PidFile none
StrictModes no
UsePAM no
Subsystem sftp internal-sftp
END
        as=$ordinary
        server="$(command -v sshd) -D -e -f $PWD/sshd_config"
        options="-F none -i key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        head -c 4000000 /dev/urandom >file
        sum=$(hash <file)
        space -p 2222:22 -- $server 2>log
        await ssh $options -p 2222 "sailor@$V4" true
        for address in "$V4" "$V6"; do
            same "$(echo word | ssh $options -p 2222 "sailor@$address" 'tr a-z A-Z; echo $SSH_CLIENT | cut -d" " -f1; exit 7' ||
                echo $?)" "WORD
$address
7"
        done
        scp -q $options -P 2222 file "sailor@$V4:$PWD/there"
        same "$(hash <there)" "$sum"
        scp -q $options -P 2222 "sailor@[$V6]:$PWD/there" back
        same "$(hash <back)" "$sum"
        $as $server -p 2200 2>log2 &
        await ssh $options -p 2200 "sailor@$V4" true
        for address in "$V4" "[$V6]"; do
            run -- scp -q $options -P 2200 file "sailor@$address:$PWD/there2"
            same "$(hash <there2)" "$sum"
            run -- scp -q $options -P 2200 "sailor@$address:$PWD/there2" back2
            same "$(hash <back2)" "$sum"
            rm there2 back2
        done
        # A port of the space's loopback led to a server of the outside.
        run -- sh -c "ssh $options -p 2200 -L 9000:$V4:2200 -f -N sailor@$V6 && ssh $options -p 9000 sailor@127.0.0.1 echo through" >out
        same "$(cat out)" through
        "#,
    );
}

#[test]
fn git_clones_over_http_and_its_own_protocol() {
    script_in_network(
        "programs::remote::git_clones_over_http_and_its_own_protocol",
        &["git", "python3", "curl"],
        r#"
        export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
        git config --global safe.directory '*'
        [ -x "$(git --exec-path)/git-daemon" ] || { echo "skipped: this git has no daemon"; exit 0; }
        git init -q work
        for n in 1 2 3; do
            head -c 700000 /dev/urandom >work/file$n
            git -C work add .
            git -C work commit -qm "number $n"
        done
        mkdir served && git clone -q --bare work served/repo.git
        git -C served/repo.git update-server-info
        head=$(git -C work rev-parse HEAD)
        daemon="git daemon --reuseaddr --export-all --base-path=$PWD/served $PWD/served"
        web="python3 -m http.server --bind :: --directory $PWD/served"
        cloned() { "$@" && git -C copy fsck --strict 2>/dev/null && same "$(git -C copy rev-parse HEAD)" "$head" && rm -rf copy; }
        $daemon 2>/dev/null & $web 8000 >/dev/null 2>&1 &
        await git ls-remote -q "git://$V4/repo.git"
        await curl -sf "http://$V4:8000/repo.git/HEAD"
        for address in "$V4" "[$V6]"; do
            cloned run -- git clone -q "git://$address/repo.git" copy
            cloned run -- git clone -q "http://$address:8000/repo.git" copy
        done
        space -p 9000:9418 -- $daemon 2>/dev/null
        space -p 9001:80 -- $web 80 >/dev/null 2>&1
        await git ls-remote -q "git://$V4:9000/repo.git"
        await curl -sf "http://$V4:9001/repo.git/HEAD"
        for address in "$V4" "[$V6]" 127.0.0.1; do
            cloned git clone -q "git://$address:9000/repo.git" copy
            cloned git clone -q "http://$address:9001/repo.git" copy
        done
        "#,
    );
}
