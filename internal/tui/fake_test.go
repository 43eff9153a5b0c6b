package tui

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	_ "github.com/charmbracelet/x/exp/golden" // brings -update

	"github.com/v6d-go/v6d/client"
	"github.com/v6d-go/v6d/internal/status"
)

func TestMain(m *testing.M) {
	time.Local = time.UTC
	flag.Parse()
	os.Exit(m.Run())
}

// updating reports whether golden files are to be written.
func updating() bool { return flag.Lookup("update").Value.String() == "true" }

// epoch is when the clock of a bubble starts.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// fake is a Source with what a test puts into it. A question waits while its method
// is held, and fails with what is in errs.
type fake struct {
	mu        sync.Mutex
	over      Overview
	instances []Instance
	rows      []client.Row
	names     []Name
	streams   []Stream
	clients   []Client
	shares    map[string][]Share
	objects   map[client.ID]*Object
	values    map[client.ID]*Value
	far       map[client.ID]int64 // bytes elsewhere
	texts     map[string]string   // what commands print, by their first word
	errs      map[string]error    // by method
	holds     map[string]chan struct{}
	calls     map[string]int
	ended     map[string]int // calls that ended with their context
	limits    []int64        // of Value
	ran       [][]string     // by Run
	told      chan told      // to Watch
	seq       uint64
	past      []client.Event
	dry       string // what commands would do
}

// told is an answer of Watch.
type told struct {
	events []client.Event
	lost   bool
	err    error
}

var _ Source = (*fake)(nil)

func newFake() *fake {
	return &fake{
		over: Overview{
			Address: "/run/v6d/s", Extended: true, Version: "0.1.0", Instance: 1, Used: 600 << 20, Limit: 1 << 30, Objects: 3, Blobs: 5, Clients: 2,
		},
		shares: map[string][]Share{}, objects: map[client.ID]*Object{}, values: map[client.ID]*Value{}, far: map[client.ID]int64{},
		texts: map[string]string{}, errs: map[string]error{}, holds: map[string]chan struct{}{}, calls: map[string]int{}, ended: map[string]int{}, told: make(chan told, 100),
	}
}

// hold lets questions wait until release.
func (f *fake) hold(methods ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range methods {
		f.holds[m] = make(chan struct{})
	}
}

func (f *fake) release(methods ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range methods {
		close(f.holds[m])
		delete(f.holds, m)
	}
}

// fail lets questions fail; nil ends that.
func (f *fake) fail(err error, methods ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range methods {
		f.errs[m] = err
	}
}

// asked tells how often a method was called.
func (f *fake) asked(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

// commands tells what was run, a line each.
func (f *fake) commands() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, args := range f.ran {
		b.WriteString(strings.Join(args, " ") + "\n")
	}
	return b.String()
}

// change changes what the daemon has, and tells of the objects that this is about.
func (f *fake) change(kind string, ids []client.ID, how func()) {
	f.mu.Lock()
	how()
	var events []client.Event
	for _, id := range ids {
		f.seq++
		events = append(events, client.Event{Seq: f.seq, TimeMS: epoch.UnixMilli() + int64(f.seq)*1500, Kind: kind, ID: id, Type: "vineyard::Tensor<int32>"})
	}
	f.mu.Unlock()
	if len(events) > 0 {
		f.told <- told{events: events}
	}
}

// begin is the start of every method.
func (f *fake) begin(ctx context.Context, method string) error {
	f.mu.Lock()
	f.calls[method]++
	hold := f.holds[method]
	f.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			f.mu.Lock()
			f.ended[method]++
			f.mu.Unlock()
			return ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.errs[method]
}

func (f *fake) Overview(ctx context.Context) (Overview, error) {
	err := f.begin(ctx, "Overview")
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.over, err
}

// listed answers with a copy of a list of the fake.
func listed[T any](ctx context.Context, f *fake, method string, list *[]T) ([]T, error) {
	if err := f.begin(ctx, method); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(*list), nil
}

func (f *fake) Instances(ctx context.Context) ([]Instance, error) {
	return listed(ctx, f, "Instances", &f.instances)
}

func (f *fake) Objects(ctx context.Context, yield func([]client.Row) bool) error {
	rows, err := listed(ctx, f, "Objects", &f.rows)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(rows, firstRows) {
		if !yield(part) {
			return nil
		}
	}
	return nil
}

func (f *fake) Rows(ctx context.Context, ids []client.ID) (some []client.Row, err error) {
	rows, err := listed(ctx, f, "Rows", &f.rows)
	for _, r := range rows {
		if slices.Contains(ids, r.ID) {
			some = append(some, r)
		}
	}
	return some, err
}

func (f *fake) Names(ctx context.Context) ([]Name, error) { return listed(ctx, f, "Names", &f.names) }

func (f *fake) Streams(ctx context.Context) ([]Stream, error) {
	return listed(ctx, f, "Streams", &f.streams)
}

func (f *fake) Clients(ctx context.Context) ([]Client, error) {
	return listed(ctx, f, "Clients", &f.clients)
}

func (f *fake) Shares(ctx context.Context, by string) ([]Share, error) {
	f.mu.Lock()
	list := slices.Clone(f.shares[by])
	f.mu.Unlock()
	return listed(ctx, f, "Shares", &list)
}

func (f *fake) Object(ctx context.Context, id client.ID) (*Object, error) {
	if err := f.begin(ctx, "Object"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if o := f.objects[id]; o != nil {
		return o, nil
	}
	return nil, status.Errorf(status.ObjectNotExists, "no object %s", id).WithHint("it may have been deleted: `v6d ls` shows what there is")
}

func (f *fake) Value(ctx context.Context, id client.ID, limit int64) (*Value, error) {
	err := f.begin(ctx, "Value")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limits = append(f.limits, limit)
	switch {
	case err != nil:
		return nil, err
	case limit >= 0 && f.far[id] > limit:
		return nil, &FarError{f.far[id]}
	case f.values[id] == nil:
		return nil, status.Errorf(status.ObjectNotExists, "no object %s", id)
	}
	return f.values[id], nil
}

func (f *fake) Watch(ctx context.Context, cursor uint64) (events []client.Event, next uint64, lost bool, err error) {
	if err := f.begin(ctx, "Watch"); err != nil {
		return nil, 0, false, err
	}
	if cursor == 0 {
		f.mu.Lock()
		defer f.mu.Unlock()
		return nil, f.seq + 1, false, nil
	}
	select {
	case t := <-f.told:
		return t.events, cursor + uint64(len(t.events)), t.lost, t.err
	case <-ctx.Done():
		f.mu.Lock()
		f.ended["Watch"]++
		f.mu.Unlock()
		return nil, 0, false, ctx.Err()
	}
}

func (f *fake) Past(ctx context.Context, until uint64) ([]client.Event, error) {
	if err := f.begin(ctx, "Past"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.past), func(e client.Event) bool { return e.Seq >= until }), nil
}

func (f *fake) Run(ctx context.Context, args ...string) (string, error) {
	if slices.Contains(args, "--dry-run") {
		return f.dry, f.begin(ctx, "Run")
	}
	f.mu.Lock()
	f.ran = append(f.ran, args)
	f.mu.Unlock()
	if err := f.begin(ctx, "Run"); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if args[0] == "rm" {
		id, err := client.ParseID(args[len(args)-1])
		if err != nil {
			return "", err
		}
		f.rows = slices.DeleteFunc(f.rows, func(r client.Row) bool { return r.ID == id })
		f.names = slices.DeleteFunc(f.names, func(n Name) bool { return n.ID == id })
		delete(f.objects, id)
	}
	return f.texts[args[0]], nil
}

func (f *fake) Close() error { return nil }

// methods are all questions.
var methods = []string{"Overview", "Instances", "Objects", "Rows", "Names", "Streams", "Clients", "Shares", "Object", "Value", "Watch", "Past", "Run"}

var errRefused = status.Errorf(status.ConnectionFailed, "no daemon answers at /run/v6d/s: connection refused").
	WithHint("start one with `v6d serve`, or name another socket with --socket")

// oid is the id of the n-th object of a fake.
func oid(n int) client.ID { return client.ID(0x0051dd9f7a2c0000 + uint64(n)) }

// bid is the id of the n-th blob.
func bid(n int) client.ID { return oid(n) | 1<<63 }

// strange are names as nobody should give them.
var strange = []string{
	"東京 データ 🎉", "e\u0301a\u0302o\u0303\u0304\u0305 combining", "\u202Egnirts desrever\u202C", "\x1b[31mred\x1b[0m\x1b[2J", "tab\there\nline\r\x07bell\x00\x9b31m",
	"עברית مرحبا", "👨‍👩‍👧‍👦 🇩🇪 ❤️ 👍🏽 1️⃣", "a\u200bb\u2066c\u2069\ufeff", "\xff\xfe not UTF-8 \xc3", "x\u061cy\u00adz\u180ew", "ｆｕｌｌ　ｗｉｄｔｈ",
	strings.Repeat("長い名前", 80), "\U000E0041\U000E007F tags \U000F0000 private", "ก็็็็็็็็็็ ﷽ ꧅ 𒐫", "--all", "it's $(rm -rf ~); `x` \"q\" [a-z] {1,2} !! \\", "\u2028line\u2029par\ufffc\ufff9",
}

// object makes an object of some members and fields.
func object(id client.ID, typ string, fields, members int, names ...string) *Object {
	m := client.NewMeta(typ)
	m.ID, m.Transient, m.Time, m.InstanceID = id, false, epoch.Add(-90*time.Minute), 1
	if len(names) > 0 {
		m.Name = names[0]
	}
	for i := range fields {
		m.Set(fmt.Sprintf("field_%d_", i), json.RawMessage(fmt.Sprint(i*1000)))
	}
	for i := range members {
		part := client.NewMeta("vineyard::NumericArray<double>")
		part.ID, part.InstanceID = id+client.ID(i)+1, 1
		part.Set("length_", 1000).Set("nbytes", 8000)
		blob := client.BlobMember(bid(i + 1))
		blob.InstanceID = 1
		part.Add("buffer_", blob.Set("nbytes", 8000))
		m.Add(fmt.Sprintf("__columns_-%d", i), part)
	}
	return &Object{Meta: m, Names: names, Frees: int64(members) * 8000, Blobs: members, Bytes: int64(members) * 8000, Here: 1}
}

// fill puts n of everything into a fake.
func (f *fake) fill(n int) *fake {
	kinds := []string{"vineyard::Tensor<int32>", "vineyard::DataFrame", "vineyard::Table", "vineyard::Sequence"}
	for i := range n {
		r := client.Row{
			ID: oid(i), Type: kinds[i%4], Instance: uint64(i % 3), TimeMS: epoch.Add(-time.Duration(i) * time.Minute).UnixMilli(),
			Bytes: int64(i) * 1000, Members: i % 7, Transient: i%5 == 4, Global: i%11 == 10,
		}
		if i%2 == 0 {
			r.Names = []string{fmt.Sprintf("name_%d", i)}
		}
		if i%3 == 0 {
			r.Labels = map[string]string{"stage": "raw", "n": fmt.Sprint(i)}
		}
		f.rows = append(f.rows, r)
		f.names = append(f.names, Name{Name: fmt.Sprintf("name_%05d", i), ID: oid(i), Type: r.Type, Bytes: r.Bytes, Gone: i%9 == 8})
		f.instances = append(f.instances, Instance{
			Number: uint64(i), Host: fmt.Sprintf("node%d", i), Endpoint: fmt.Sprintf("10.0.%d.%d:9600", i>>8, i&255), Used: int64(i) << 20, Limit: 1 << 30,
			Objects: i, Clients: i%4 - 1, Heartbeat: time.Duration(i) * time.Second, State: "up", Self: i == 0,
		})
		f.streams = append(f.streams, Stream{
			Name: fmt.Sprintf("stream_%d", i), ID: oid(i), Type: "vineyard::RecordBatchStream", State: "open", Writer: "closed", Readers: []string{"one at 3", "(no name) at 0"},
			Chunks: int64(i), Bytes: int64(i) << 10, Ready: 2, Pushed: uint64(i) * 3, Pulled: uint64(i), Waits: "reader", Rate: -1,
		})
		f.clients = append(f.clients, Client{
			Key: fmt.Sprint(i), Process: fmt.Sprintf("python %d of ann", 1000+i), PID: 1000 + i, Session: fmt.Sprintf("S%016x", i), Since: epoch.Add(-time.Duration(i) * time.Second),
			Requests: uint64(i), Idle: i%2 == 1, Extended: i%3 == 0, Made: int64(i) << 20, Unsealed: int64(i%4) << 20, Gone: i%5 == 4,
		})
		for _, by := range groups {
			f.shares[by] = append(f.shares[by], Share{Key: fmt.Sprintf("%s_%d", by, i), Bytes: int64(n-i) << 10, Blobs: i, Counted: true})
		}
	}
	f.objects[oid(0)] = object(oid(0), "vineyard::DataFrame", min(n, 12), min(n, 30), "name_0")
	for i := range min(n, 3) {
		f.objects[oid(0)].Owners = append(f.objects[oid(0)].Owners, Ref{ID: oid(500 + i), Type: "vineyard::Sequence", Name: ""})
	}
	f.values[oid(0)] = tableValue(n)
	f.values[bid(1)] = bytesValue(n * 16)
	f.texts["describe"], f.texts["meta"], f.texts["stream"] = textOf(n), "{\n  \"id\": \"o1\"\n}\n", textOf(n)
	return f
}

func textOf(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "line %d:\ttext\n", i)
	}
	return b.String()
}

func tableValue(n int) *Value {
	v := &Value{
		Kind: "table", About: fmt.Sprintf("%d rows, 3 columns", n), Columns: []string{"city", "price", "note"}, Types: []string{"string", "float64", ""},
		Numeric: []bool{false, true, false}, Total: int64(n),
	}
	cities := []string{"Köln", "東京", "Łódź", "مكة"}
	for i := range n {
		price := fmt.Sprintf("%.2f", float64(i)*1.5)
		if i%4 == 3 {
			price = "NaN"
		}
		v.Rows = append(v.Rows, []string{cities[i%4], price, strings.Repeat("x", i%60)})
	}
	return v
}

func arrayValue(n int) *Value {
	v := &Value{
		Kind: "array", About: fmt.Sprintf("array %d of float64", n), Columns: []string{"value"}, Types: []string{"float64"}, Numeric: []bool{true}, Total: int64(n),
		Stats: []string{"min -1", "max 1e+300", "mean 0.5", "std 2", "NaN or infinite 3"}, Bars: []int{0, 1, 5, 20, 100, 20, 5, 1, 0, 3}, From: "-1", To: "1e+300",
	}
	for i := range n {
		v.Rows = append(v.Rows, []string{[]string{"0.25", "NaN", "+Inf", "-Inf"}[i%4]})
	}
	return v
}

func bytesValue(n int) *Value {
	v := &Value{Kind: "bytes", About: fmt.Sprintf("%d bytes", n), Bytes: make([]byte, n), Total: int64(n)}
	for i := range v.Bytes {
		v.Bytes[i] = byte(i * 7)
	}
	return v
}

// fillStrange puts in what must not reach the terminal as it is.
func (f *fake) fillStrange() *fake {
	f.over.Address = strange[3] + strange[2]
	o := object(oid(0), strange[3], 0, 0, strange[0], strange[2])
	o.Meta.Labels = map[string]string{strange[1]: strange[2], strange[6]: strange[4]}
	for i, s := range strange {
		typ := "vineyard::" + s
		f.rows = append(f.rows, client.Row{ID: oid(i), Type: typ, Names: []string{s, "second " + s}, Labels: map[string]string{s: s}, TimeMS: epoch.UnixMilli(), Bytes: 1 << 50})
		f.names = append(f.names, Name{Name: s, ID: oid(i), Type: typ, Bytes: -1})
		f.instances = append(f.instances, Instance{Number: uint64(i), Host: s, Endpoint: s, State: s, Used: -1, Limit: -1, Clients: -1})
		f.streams = append(f.streams, Stream{Name: s, ID: oid(i), Type: typ, State: s, Reason: s, Writer: s, Waits: s, Readers: []string{s, s}})
		f.clients = append(f.clients, Client{Key: fmt.Sprint(i), Process: s, Session: s})
		for _, by := range groups {
			f.shares[by] = append(f.shares[by], Share{Key: s, Bytes: 1 << 40, Blobs: 1})
		}
		member := client.NewMeta(typ)
		member.ID = oid(100 + i)
		member.Add(s, client.BlobMember(bid(i)))
		o.Meta.Add(s, member).Set(s, s)
		o.Owners = append(o.Owners, Ref{ID: oid(200 + i), Type: typ, Name: s})
	}
	f.objects[oid(0)] = o
	v := &Value{Kind: "table", About: strange[4], Columns: strange, Types: strange, Numeric: make([]bool, len(strange)), Stats: strange, From: strange[2], To: strange[3], Bars: []int{1, 2, 3}}
	for i := range strange {
		v.Rows = append(v.Rows, slices.Concat(strange[i:], strange[:i]))
	}
	f.values[oid(0)] = v
	f.texts["describe"] = strings.Join(strange, "\n")
	f.texts["stream"] = f.texts["describe"]
	return f
}

// strangeEvents tells of them.
func (f *fake) strangeEvents() {
	var events []client.Event
	for i, s := range strange {
		events = append(events, client.Event{Seq: uint64(i + 1), TimeMS: epoch.UnixMilli(), Kind: "created", ID: oid(i), Type: s, Name: s})
	}
	f.told <- told{events: events}
}

// harness runs a model without a program, in a bubble whose clock stands still
// while anything is at work.
type harness struct {
	t      testing.TB
	m      *Model
	src    *fake
	msgs   chan tea.Msg
	ctx    context.Context
	quit   bool
	copied []string // to the clipboard
	other  []string // messages that are for the program
}

// bubble runs f with the clock of a bubble. A test of rapid may fail inside.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	var failure any
	synctest.Test(t, func(t *testing.T) {
		defer func() { failure = recover() }()
		f(t)
	})
	if failure != nil {
		panic(failure)
	}
}

// start opens a browser over a source, and waits for what it asks for.
func start(t testing.TB, src *fake, o Options, width, height int) *harness {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h := &harness{t: t, src: src, msgs: make(chan tea.Msg, 1000), ctx: ctx}
	t.Cleanup(func() {
		cancel()
		time.Sleep(time.Minute) // clocks of a bubble stand still at its end: what waits for one ends now
	})
	if o.Theme == "" {
		o.Theme = "dark"
	}
	h.m = New(ctx, src, o)
	h.send(tea.WindowSizeMsg{Width: width, Height: height})
	h.do(h.m.Init())
	h.settle()
	return h
}

// do runs a command as a program would.
func (h *harness) do(cmd tea.Cmd) {
	if cmd == nil {
		return
	}
	go func() {
		msg := cmd()
		select {
		case h.msgs <- msg:
		case <-h.ctx.Done():
		}
	}()
}

// send updates the model.
func (h *harness) send(msg tea.Msg) {
	switch msg := msg.(type) {
	case nil:
	case tea.BatchMsg:
		for _, cmd := range msg {
			h.do(cmd)
		}
	case tea.QuitMsg:
		h.quit = true
	default:
		switch name := reflect.TypeOf(msg).String(); name {
		case "tea.setClipboardMsg":
			h.copied = append(h.copied, fmt.Sprint(msg))
		case "tea.suspendMsg", "tea.clearScreenMsg", "tea.SuspendMsg", "tea.backgroundColorMsg":
			h.other = append(h.other, name)
		default:
			_, cmd := h.m.Update(msg)
			h.m.View()
			h.do(cmd)
		}
	}
}

// settle takes messages until nothing is at work but what waits for the clock or
// is held.
func (h *harness) settle() {
	for {
		synctest.Wait()
		select {
		case msg := <-h.msgs:
			h.send(msg)
		default:
			return
		}
	}
}

// wait lets time pass.
func (h *harness) wait(d time.Duration) {
	end := time.Now().Add(d)
	for {
		h.settle()
		left := time.Until(end)
		if left <= 0 {
			return
		}
		select {
		case msg := <-h.msgs:
			h.send(msg)
		case <-time.After(left):
		}
	}
}

// press makes the message of a key as the table of bindings names it.
func press(key string) tea.KeyPressMsg {
	special := map[string]rune{
		"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "backspace": tea.KeyBackspace, "up": tea.KeyUp, "down": tea.KeyDown,
		"left": tea.KeyLeft, "right": tea.KeyRight, "home": tea.KeyHome, "end": tea.KeyEnd, "pgup": tea.KeyPgUp, "pgdown": tea.KeyPgDown,
		"delete": tea.KeyDelete, "space": tea.KeySpace,
	}
	var k tea.KeyPressMsg
	name := key
	if rest, ok := strings.CutPrefix(name, "ctrl+"); ok {
		k.Mod, name = tea.ModCtrl, rest
	}
	if rest, ok := strings.CutPrefix(name, "shift+"); ok {
		k.Mod, name = tea.ModShift, rest
	}
	if code, ok := special[name]; ok {
		k.Code = code
		if name == "space" {
			k.Text = " "
		}
		return k
	}
	k.Code = []rune(name)[0]
	if k.Mod == 0 {
		k.Text = name
		if unicode.IsUpper(k.Code) {
			k.Code, k.ShiftedCode, k.Mod = unicode.ToLower(k.Code), k.Code, tea.ModShift
		}
	}
	return k
}

// keys presses keys, and waits for what comes of each.
func (h *harness) keys(keys ...string) {
	h.t.Helper()
	for _, k := range keys {
		h.send(press(k))
		h.settle()
	}
}

// typed presses the keys of a text.
func (h *harness) typed(text string) {
	for _, r := range text {
		if r == ' ' {
			h.send(press("space"))
		} else {
			h.send(tea.KeyPressMsg{Code: r, Text: string(r)})
		}
	}
	h.settle()
}

// screen is what is on the screen, without colours.
func (h *harness) screen() string { return ansi.Strip(h.m.View().Content) }

// shows fails unless texts are on the screen; ! before one means that it is not.
func (h *harness) shows(texts ...string) {
	h.t.Helper()
	screen := h.screen()
	for _, text := range texts {
		rest, not := strings.CutPrefix(text, "!")
		if strings.Contains(screen, rest) == not {
			h.t.Errorf("screen: %q is wanted: %v\n%s", rest, !not, screen)
		}
	}
}

// subject is the id that actions are about, 0 for none.
func (h *harness) subject() client.ID {
	if list := h.m.page().subjects(); len(list) > 0 {
		return list[0].id
	}
	return 0
}

// checkView fails unless a view is as high as the screen, nowhere wider, and sends
// nothing but colours to the terminal.
func checkView(m *Model) error {
	view := m.View()
	raw := view.Content
	lines := strings.Split(raw, "\n")
	if m.lay.width < minWidth || m.lay.height < minHeight {
		if len(lines) > max(m.lay.height, 1) {
			return fmt.Errorf("%d lines on %d", len(lines), m.lay.height)
		}
	} else if len(lines) != m.lay.height {
		return fmt.Errorf("%d lines on %d", len(lines), m.lay.height)
	}
	for i, line := range lines {
		if w := ansi.StringWidth(line); w > m.lay.width {
			return fmt.Errorf("line %d is %d wide of %d: %q", i, w, m.lay.width, line)
		}
	}
	for i, r := range withoutColours(raw) {
		if r != '\n' && unsafe(r) || unicode.Is(unicode.Cc, r) && r != '\n' || unicode.Is(unicode.Bidi_Control, r) {
			return fmt.Errorf("character %U at %d", r, i)
		}
	}
	if strings.ContainsFunc(view.WindowTitle, unsafe) {
		return fmt.Errorf("window title %q", view.WindowTitle)
	}
	return nil
}

// withoutColours takes only the sequences away that a style may make.
func withoutColours(text string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(text, "\x1b[")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		n := strings.IndexFunc(rest, func(r rune) bool { return (r < '0' || r > '9') && r != ';' && r != ':' })
		if n < 0 || rest[n] != 'm' {
			b.WriteString("\x1b") // not a colour
			n = -1
		}
		text = rest[n+1:]
	}
}

var errBroken = errors.New("it is broken\nin two lines")
