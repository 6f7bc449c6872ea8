package services

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/tools/txtar"
)

func itoa(n uint16) string { return strconv.Itoa(int(n)) }

// Read returns the case file for each family.
func Read(name string, data []byte) ([]File, error) {
	archive := txtar.Parse(data)
	families, ok := map[string][]string{"4": {"4"}, "6": {"6"}, "": {"4", "6"}}[setting(string(archive.Comment), "families")]
	if !ok {
		return nil, fmt.Errorf("%s: families: want 4 or 6", name)
	}
	var out []File
	var errs []error
	for _, family := range families {
		file, err := read(name, family, archive)
		out, errs = append(out, file), append(errs, err)
	}
	return out, errors.Join(errs...)
}

// setting finds "name: value" at the begin of a line.
func setting(text, name string) string {
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func read(name, family string, archive *txtar.Archive) (File, error) {
	file := File{Name: name + "/" + family}
	var errs []error
	for _, part := range archive.Files {
		text := string(part.Data)
		if family == "6" {
			text = Six(text)
		}
		step, what := 1, part.Name
		if before, after, ok := strings.Cut(part.Name, "/"); ok {
			step, _ = strconv.Atoi(before)
			what = after
		}
		switch {
		case what == "objects.yaml" && step == len(file.Steps)+1:
			file.Steps = append(file.Steps, Step{Objects: text})
		case what == "asks" && step >= 1 && step == len(file.Steps):
			asks, err := readAsks(text, family)
			for i := range asks {
				asks[i].File, asks[i].Step = file.Name, step
			}
			file.Steps[step-1].Asks, errs = asks, append(errs, err)
		default:
			errs = append(errs, fmt.Errorf("%s is no part of a case in this place", part.Name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return file, fmt.Errorf("%s: %w", file.Name, err)
	}
	return file, nil
}

func readAsks(text, family string) ([]Ask, error) {
	var asks []Ask
	var errs []error
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		if line[0] == ' ' || line[0] == '\t' {
			if len(asks) == 0 || len(fields) < 3 || fields[0] != Hythe && fields[0] != KubeProxy {
				errs = append(errs, fmt.Errorf("%q: want hythe or kube-proxy, an outcome and a decision, below an ask", line))
				continue
			}
			last := len(fields) - 1
			asks[len(asks)-1].Decided[fields[0]] = Decided{outcome(fields[1:last]), fields[last]}
			continue
		}
		ask, only, err := readAsk(fields)
		if err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", strings.TrimSpace(line), err))
		}
		if only == "" || only == family {
			asks = append(asks, ask)
		} else {
			asks = append(asks, Ask{Decided: map[string]Decided{}}) // takes the lines below, and is left out
		}
	}
	return slices.DeleteFunc(asks, func(a Ask) bool { return a.Kind == "" }), errors.Join(errs...)
}

var kinds = []string{"tcp", "udp", "http", "ping", "open", "still"}

func readAsk(fields []string) (ask Ask, family string, err error) {
	if len(fields) < 4 {
		return Ask{}, "", errors.New("want from, protocol, address and outcome")
	}
	ask = Ask{From: fields[0], Kind: fields[1], Decided: map[string]Decided{}}
	if from, port, ok := strings.Cut(fields[0], ":"); ok {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return Ask{}, "", fmt.Errorf("source port: %w", err)
		}
		ask.From, ask.Port = from, uint16(n)
	}
	if !slices.Contains(kinds, ask.Kind) {
		return Ask{}, "", fmt.Errorf("protocol %q is none of %v", ask.Kind, kinds)
	}
	to := fields[2]
	if host, path, ok := strings.Cut(to, "/"); ok {
		to, ask.Path = host, "/"+path
	}
	if addr, errAddr := netip.ParseAddr(to); ask.Kind == "ping" && errAddr == nil {
		ask.To = netip.AddrPortFrom(addr, 0)
	} else if ask.To, err = netip.ParseAddrPort(to); err != nil {
		return Ask{}, "", err
	}
	rest := fields[3:]
	for len(rest) > 1 {
		key, value, _ := strings.Cut(rest[len(rest)-1], "=")
		switch key {
		case "asks":
			ask.Count, err = strconv.Atoi(value)
		case "pause":
			ask.Pause, err = time.ParseDuration(value)
		case "family":
			family = value
		default:
			ask.Want = outcome(rest)
			return ask, family, nil
		}
		if err != nil {
			return Ask{}, "", err
		}
		rest = rest[:len(rest)-1]
	}
	ask.Want = outcome(rest)
	return ask, family, nil
}

// outcome reads the words of an outcome. A status by HTTP is one answer of two words.
func outcome(words []string) Outcome {
	var o Outcome
	if words[0] == "one" {
		o.One, words = true, words[1:]
	}
	if len(words) == 2 && len(words[0]) == 3 && strings.Trim(words[0], "0123456789") == "" {
		words = []string{words[0] + " " + words[1]}
	}
	o.Answers = slices.Sorted(slices.Values(words))
	return o
}

// Decisions reads the paragraphs of decisions.txt, "NAME: text".
func Decisions(text string) map[string]string {
	out := map[string]string{}
	for paragraph := range strings.SplitSeq(strings.TrimSpace(text), "\n\n") {
		name, why, ok := strings.Cut(paragraph, ":")
		if ok && !strings.ContainsAny(name, " \n") {
			out[name] = strings.Join(strings.Fields(why), " ")
		}
	}
	return out
}

var (
	fourth   = regexp.MustCompile(`\b(\d{1,3}(?:\.\d{1,3}){3})(/\d+)?(:\d+)?`)
	nodePort = regexp.MustCompile(`\b(?:30\d|31[0-3])\d{2}\b`)
)

// Six is the text of a case for IPv6: see the package's comment.
func Six(text string) string {
	text = nodePort.ReplaceAllStringFunc(text, func(s string) string {
		n, _ := strconv.Atoi(s)
		return strconv.Itoa(n + 1400)
	})
	text = fourth.ReplaceAllStringFunc(text, func(s string) string {
		m := fourth.FindStringSubmatch(s)
		addr, err := netip.ParseAddr(m[1])
		if err != nil {
			return s
		}
		out := SixOf(addr).String()
		if bits := strings.TrimPrefix(m[2], "/"); bits != "" {
			n, _ := strconv.Atoi(bits)
			if addr.IsUnspecified() && n == 0 {
				n = -96
			}
			out += "/" + strconv.Itoa(n+96)
		}
		if m[3] != "" {
			out = "[" + out + "]" + m[3]
		}
		return out
	})
	return strings.ReplaceAll(text, "IPv4", "IPv6")
}

// SixOf is the IPv6 address that stands for an IPv4 address.
func SixOf(addr netip.Addr) netip.Addr {
	switch {
	case addr.IsLoopback():
		return netip.IPv6Loopback()
	case addr.IsUnspecified():
		return netip.IPv6Unspecified()
	}
	var b [16]byte
	b[0] = 0xfd
	four := addr.As4()
	copy(b[12:], four[:])
	return netip.AddrFrom16(b)
}
