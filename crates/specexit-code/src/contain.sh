# Runs as the first process of new mount, pid, network, IPC and UTS namespaces, as superuser of a new
# user namespace or as the real one.
# Arguments: a mount point, the size of the root, options for setpriv that say who runs the command;
# paths to show read-only, --; limits for prlimit, --; the command. Standard input belongs to the
# command.
set -eu
root=$1
size=$2
identity=$3
shift 3
mount -t tmpfs -o "size=$size,nr_inodes=4096,mode=755,nosuid,nodev" specexit "$root"
# A folder of its own, because other mounts may lie hidden under the mount point.
root=$root/contained
mkdir "$root" "$root/work" "$root/tmp" "$root/dev"
chmod 1777 "$root/work" "$root/tmp"
for device in null zero random urandom; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
while [ "$1" != -- ]; do
    path=$1
    shift
    mkdir -p "$root${path%/*}"
    if [ -L "$path" ]; then
        cp -P "$path" "$root$path"
    elif [ -d "$path" ]; then
        mkdir -p "$root$path"
        mount --rbind "$path" "$root$path"
    elif [ -f "$path" ]; then
        : >"$root$path"
        mount --bind "$path" "$root$path"
    else
        echo "$path cannot be read by the user who runs the sandbox" >&2
        exit 1
    fi
done
shift
# A remount must repeat the options a mount has: in a user namespace they cannot be taken off.
while read -r _ _ _ _ target options _; do
    case $target in
    "$root"/*) mount -o "remount,bind,$options,ro" "$(printf %b "$target")" ;;
    esac
done <<END
$(cat /proc/self/mountinfo)
END
set_limits=
while [ "$1" != -- ]; do
    set_limits="$set_limits $1"
    shift
done
shift
# The shell stays as first process, so that signals mean for the command what they always mean.
# shellcheck disable=SC2086
exec chroot "$root" setpriv $identity --no-new-privs --pdeathsig=KILL \
    --bounding-set=-all --inh-caps=-all --ambient-caps=-all \
    prlimit $set_limits -- sh -c 'cd /work && "$@"; exit $?' sh "$@"
