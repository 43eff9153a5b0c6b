package protocol

import (
	"github.com/v6d-go/v6d/internal/object"
	"github.com/v6d-go/v6d/internal/wirejson"
)

// None is a request or reply without fields.
type None struct{}

// Handshake.
type (
	RegisterRequest struct {
		Version    string           `wire:"version,optional"`
		StoreType  StoreType        `wire:"store_type"`
		SessionID  object.SessionID `wire:"session_id,optional"`
		Username   string           `wire:"username,optional"`
		Password   string           `wire:"password,optional"`
		Extensions []string         `wire:"extensions,optional"` // v6d's own: requests that the client may send
	}
	RegisterReply struct {
		IPCSocket   string            `wire:"ipc_socket"`
		RPCEndpoint string            `wire:"rpc_endpoint"`
		InstanceID  object.InstanceID `wire:"instance_id"`
		SessionID   object.SessionID  `wire:"session_id"`
		Version     string            `wire:"version"`
		StoreMatch  bool              `wire:"store_match"`
		Compression bool              `wire:"support_rpc_compression"`
		Extensions  Extensions        `wire:"extensions,optional"`
	}
)

var (
	Register = Define[RegisterRequest, RegisterReply]("register_request", "register_reply", "first request of every connection")
	Exit     = Define[None, None]("exit_request", "", "hang up; never answered")
)

// Blobs over IPC.
type (
	SizeRequest struct {
		Size uint64 `wire:"size"`
	}
	CreateBufferReply struct {
		ID      object.ID `wire:"id"`
		FD      int64     `wire:"fd"`
		Created Payload   `wire:"created"`
	}
	CreateBuffersRequest struct {
		Sizes []uint64 `wire:"sizes"`
	}
	CreateBuffersReply struct {
		IDs      []object.ID `wire:"ids"`
		FDs      []int64     `wire:"fds"`
		Payloads Payloads    `wire:"payloads"`
	}
	CreateDiskBufferRequest struct {
		Size uint64 `wire:"size"`
		Path string `wire:"path"`
	}
	ObjectIDRequest struct {
		ObjectID object.ID `wire:"object_id"`
	}
	ReleaseRequest struct {
		ObjectID object.ID `wire:"object_id,alt=id"` // the Go client says id
	}
	IDRequest struct {
		ID object.ID `wire:"id"`
	}
	GetBuffersRequest struct {
		IDs    IDs  `wire:"ids"`
		Unsafe bool `wire:"unsafe,optional"`
	}
	GetBuffersReply struct {
		Payloads Payloads `wire:"payloads"`
		FDs      []int64  `wire:"fds"`
		Compress bool     `wire:"compress,optional"`
	}
	ShrinkRequest struct {
		ID   object.ID `wire:"id"`
		Size uint64    `wire:"size"`
	}
	IDListRequest struct {
		IDs []object.ID `wire:"ids"`
	}
	LoadRequest struct {
		IDs []object.ID `wire:"ids"`
		Pin bool        `wire:"pin,optional"`
	}
	InUseReply struct {
		InUse bool `wire:"is_in_use"`
	}
	SpilledReply struct {
		Spilled bool `wire:"is_spilled"`
	}
)

// Reset empties a request for its next use. Short lists keep their memory.
func (q *GetBuffersRequest) Reset() { *q = GetBuffersRequest{IDs: reuse(q.IDs)} }

// Reset empties a reply for its next use. Short lists keep their memory.
func (r *GetBuffersReply) Reset() {
	*r = GetBuffersReply{Payloads: reuse(r.Payloads), FDs: reuse(r.FDs)}
}

// Reset empties a request for its next use. Short lists keep their memory.
func (q *GetDataRequest) Reset() { *q = GetDataRequest{IDs: reuse(q.IDs)} }

func reuse[S ~[]E, E any](list S) S {
	if cap(list) > 64 {
		return nil
	}
	return list[:0]
}

var (
	CreateBuffer     = Define[SizeRequest, CreateBufferReply]("create_buffer_request", "create_buffer_reply", "create an unsealed blob")
	CreateBuffers    = Define[CreateBuffersRequest, CreateBuffersReply]("create_buffers_request", "create_buffers_reply", "create several unsealed blobs, all or none")
	CreateDiskBuffer = Define[CreateDiskBufferRequest, CreateBufferReply]("create_disk_buffer_request", "create_disk_buffer_reply", "create a blob in a file of its own")
	CreateGPUBuffer  = Define[SizeRequest, None]("create_gpu_buffer_request", "create_gpu_buffer_reply", "refused: no GPU support")
	GetGPUBuffers    = Define[GetBuffersRequest, None]("get_gpu_buffers_request", "get_gpu_buffers_reply", "refused: no GPU support")
	Seal             = Define[ObjectIDRequest, None]("seal_request", "seal_reply", "make a blob immutable and take a reference")
	GetBuffers       = Define[GetBuffersRequest, GetBuffersReply]("get_buffers_request", "get_buffers_reply", "locate blobs and take references; unknown ids are left out")
	DropBuffer       = Define[IDRequest, None]("drop_buffer_request", "drop_buffer_reply", "delete a blob whoever refers to it")
	ShrinkBuffer     = Define[ShrinkRequest, None]("shrink_buffer_request", "shrink_buffer_reply", "shorten an unsealed blob")
	IncreaseRefs     = Define[IDListRequest, None]("increase_reference_count_request", "increase_reference_count_reply", "take references")
	Release          = Define[ReleaseRequest, None]("release_request", "release_reply", "give a reference back")
	IsInUse          = Define[IDRequest, InUseReply]("is_in_use_request", "is_in_use_reply", "false only for a sealed blob that nobody refers to")
	IsSpilled        = Define[IDRequest, SpilledReply]("is_spilled_request", "is_spilled_reply", "whether a blob lies in the spill folder")
	ReleaseRDMA      = Define[GetBuffersRequest, None]("release_blobs_with_rdma_request", "release_blobs_with_rdma_reply", "accepted; there is no RDMA")
	Evict            = Define[IDListRequest, None]("evict_request", "evict_reply", "refused without a spill path")
	Load             = Define[LoadRequest, None]("load_request", "load_reply", "accepted; nothing is spilled without a spill path")
	Unpin            = Define[IDListRequest, None]("unpin_request", "unpin_reply", "accepted; nothing is spilled without a spill path")
)

// Blobs in sessions of the plasma type.
type (
	PlasmaCreateRequest struct {
		PlasmaID   string `wire:"plasma_id"`
		Size       uint64 `wire:"size"`
		PlasmaSize uint64 `wire:"plasma_size"`
	}
	PlasmaCreateReply struct {
		ID      object.ID     `wire:"id"`
		FD      int64         `wire:"fd"`
		Created PlasmaPayload `wire:"created"`
	}
	PlasmaGetRequest struct {
		IDs    Texts `wire:"num"`
		Unsafe bool  `wire:"unsafe,optional"`
	}
	PlasmaGetReply struct {
		Payloads PlasmaPayloads `wire:"num"`
	}
	PlasmaIDRequest struct {
		PlasmaID string `wire:"plasma_id"`
	}
)

var (
	PlasmaCreate  = Define[PlasmaCreateRequest, PlasmaCreateReply]("create_buffer_by_plasma_request", "create_buffer_by_plasma_reply", "create a blob under the client's id")
	PlasmaGet     = Define[PlasmaGetRequest, PlasmaGetReply]("get_buffers_by_plasma_request", "get_buffers_by_plasma_reply", "locate blobs by the clients' ids")
	PlasmaSeal    = Define[PlasmaIDRequest, None]("plasma_seal_request", "seal_reply", "seal by the client's id")
	PlasmaRelease = Define[PlasmaIDRequest, None]("plasma_release_request", "plasma_release_reply", "give a reference back; the last one deletes")
	PlasmaDelete  = Define[PlasmaIDRequest, None]("plasma_delete_data_request", "plasma_delete_data_reply", "delete by the client's id")
)

// Blobs whose bytes travel on the connection.
type (
	CreateRemoteRequest struct {
		Size     uint64 `wire:"size"`
		Compress bool   `wire:"compress,optional"`
		RDMA     bool   `wire:"use_rdma,optional"`
	}
	CreateRemotesRequest struct {
		Sizes    []uint64 `wire:"sizes"`
		Compress bool     `wire:"compress,optional"`
		RDMA     bool     `wire:"use_rdma,optional"`
	}
	GetRemoteRequest struct {
		IDs      IDs  `wire:"ids"`
		Unsafe   bool `wire:"unsafe,optional"`
		Compress bool `wire:"compress,optional"`
		RDMA     bool `wire:"use_rdma,optional"`
	}
)

var (
	CreateRemote  = Define[CreateRemoteRequest, CreateBufferReply]("create_remote_buffer_request", "create_buffer_reply", "create a sealed blob from the bytes that follow; answered twice")
	CreateRemotes = Define[CreateRemotesRequest, CreateBuffersReply]("create_remote_buffers_request", "create_buffers_reply", "create sealed blobs from the bytes that follow; answered twice")
	GetRemote     = Define[GetRemoteRequest, GetBuffersReply]("get_remote_buffers_request", "get_buffers_reply", "read blobs; their bytes follow the reply")
)

// Metadata.
type (
	CreateDataRequest struct {
		Content wirejson.Value `wire:"content"`
	}
	CreateDataReply struct {
		ID         object.ID         `wire:"id"`
		Signature  object.Signature  `wire:"signature"`
		InstanceID object.InstanceID `wire:"instance_id"`
	}
	CreateDatasRequest struct {
		Contents []wirejson.Value `wire:"contents"`
	}
	CreateDatasReply struct {
		Num         uint64              `wire:"num"`
		IDs         []object.ID         `wire:"ids"`
		Signatures  []object.Signature  `wire:"signatures"`
		InstanceIDs []object.InstanceID `wire:"instance_ids"`
	}
	GetDataRequest struct {
		IDs        []object.ID `wire:"id"`
		SyncRemote bool        `wire:"sync_remote,optional"`
		Wait       bool        `wire:"wait,optional"`
	}
	GetDataReply struct {
		Content wirejson.Value `wire:"content"` // {"o…": tree}, or null
	}
	ListRequest struct {
		Pattern string `wire:"pattern"`
		Regex   bool   `wire:"regex,optional"`
		Limit   uint64 `wire:"limit"`
	}
	DeleteRequest struct {
		IDs        []object.ID `wire:"id"`
		Force      bool        `wire:"force,optional"`
		Deep       bool        `wire:"deep,optional,alt=deep:"` // the Rust client's spelling
		MemoryTrim bool        `wire:"memory_trim,optional"`
		Fastpath   bool        `wire:"fastpath,optional"`
	}
	DeleteFeedbackReply struct {
		Deleted []object.ID `wire:"deleted_bids"`
	}
	ExistsReply struct {
		Exists bool `wire:"exists"`
	}
	IfPersistReply struct {
		Persist bool `wire:"persist"`
	}
	LabelRequest struct {
		ID     object.ID `wire:"id"`
		Keys   []string  `wire:"keys"`
		Values []string  `wire:"values"`
	}
	ShallowCopyRequest struct {
		ID    object.ID      `wire:"id"`
		Extra wirejson.Value `wire:"extra,optional"`
	}
	ShallowCopyReply struct {
		Target object.ID `wire:"target_id"`
	}
	TrimReply struct {
		Trimmed bool `wire:"trimmed"`
	}
	MigrateReply struct {
		ObjectID object.ID `wire:"object_id"`
	}
)

var (
	CreateData     = Define[CreateDataRequest, CreateDataReply]("create_data_request", "create_data_reply", "create an object from its metadata")
	CreateDatas    = Define[CreateDatasRequest, CreateDatasReply]("create_datas_request", "create_datas_reply", "create several objects, all or none")
	GetData        = Define[GetDataRequest, GetDataReply]("get_data_request", "get_data_reply", "metadata trees of objects, expanded")
	ListData       = Define[ListRequest, GetDataReply]("list_data_request", "get_data_reply", "metadata trees by typename pattern")
	DeleteData     = Define[DeleteRequest, None]("del_data_request", "del_data_reply", "delete objects")
	DeleteFeedback = Define[DeleteRequest, DeleteFeedbackReply]("del_data_with_feedbacks_request", "del_data_with_feedbacks_reply", "delete objects and say which blobs went")
	Exists         = Define[IDRequest, ExistsReply]("exists_request", "exists_reply", "whether a blob or object is known")
	Persist        = Define[IDRequest, None]("persist_request", "persist_reply", "make an object visible to the cluster")
	IfPersist      = Define[IDRequest, IfPersistReply]("if_persist_request", "if_persist_reply", "whether an object is persistent")
	Label          = Define[LabelRequest, None]("label_request", "label_reply", "merge labels into an object")
	ShallowCopy    = Define[ShallowCopyRequest, ShallowCopyReply]("shallow_copy_request", "shallow_copy_reply", "a new object over the same members")
	Clear          = Define[None, None]("clear_request", "clear_reply", "delete everything")
	MemoryTrim     = Define[None, TrimReply]("memory_trim_request", "memory_trim_reply", "give free memory back; always answers false")
	MigrateObject  = Define[ObjectIDRequest, MigrateReply]("migrate_object_request", "migrate_object_reply", "bring an object to this instance")
)

// Names.
type (
	PutNameRequest struct {
		ObjectID object.ID `wire:"object_id"`
		Name     string    `wire:"name"`
	}
	GetNameRequest struct {
		Name string `wire:"name"`
		Wait bool   `wire:"wait"`
	}
	GetNameReply struct {
		ObjectID object.ID `wire:"object_id"`
	}
	ListNameReply struct {
		Size  uint64 `wire:"size"`
		Names Names  `wire:"names"`
	}
	DropNameRequest struct {
		Name string `wire:"name"`
	}
)

var (
	PutName  = Define[PutNameRequest, None]("put_name_request", "put_name_reply", "point a name at a persistent object")
	GetName  = Define[GetNameRequest, GetNameReply]("get_name_request", "get_name_reply", "resolve a name, or wait for it")
	ListName = Define[ListRequest, ListNameReply]("list_name_request", "list_name_reply", "names by pattern")
	DropName = Define[DropNameRequest, None]("drop_name_request", "drop_name_reply", "forget a name")
)

// Streams.
type (
	OpenStreamRequest struct {
		ObjectID object.ID `wire:"object_id"`
		Mode     int64     `wire:"mode"`
	}
	NextChunkRequest struct {
		ID   object.ID `wire:"id"`
		Size uint64    `wire:"size"`
	}
	NextChunkReply struct {
		Buffer Payload `wire:"buffer"`
		FD     int64   `wire:"fd"`
	}
	PushChunkRequest struct {
		ID    object.ID `wire:"id"`
		Chunk object.ID `wire:"chunk"`
	}
	PullChunkReply struct {
		Chunk object.ID `wire:"chunk"`
	}
	StopStreamRequest struct {
		ID     object.ID `wire:"id"`
		Failed bool      `wire:"failed"`
	}
)

var (
	CreateStream = Define[ObjectIDRequest, None]("create_stream_request", "create_stream_reply", "make an object id a stream")
	OpenStream   = Define[OpenStreamRequest, None]("open_stream_request", "open_stream_reply", "claim a stream's reading (1) or writing (2) end")
	NextChunk    = Define[NextChunkRequest, NextChunkReply]("get_next_stream_chunk_request", "get_next_stream_chunk_reply", "queue the chunk being written and start the next")
	PushChunk    = Define[PushChunkRequest, None]("push_next_stream_chunk_request", "push_next_stream_chunk_reply", "queue an object or blob")
	PullChunk    = Define[IDRequest, PullChunkReply]("pull_next_stream_chunk_request", "pull_next_stream_chunk_reply", "take the next chunk; deletes the one before")
	StopStream   = Define[StopStreamRequest, None]("stop_stream_request", "stop_stream_reply", "end a stream")
	DropStream   = Define[IDRequest, None]("drop_stream_request", "drop_stream_reply", "forget a stream and free its chunks")
)

// Sessions, arenas, locks, status.
type (
	NewSessionRequest struct {
		StoreType StoreType `wire:"bulk_store_type"`
	}
	NewSessionReply struct {
		SocketPath string `wire:"socket_path"`
	}
	MoveRequest struct {
		SessionID object.SessionID `wire:"session_id"`
		IDToID    Moves            `wire:"id_to_id"`
		IDToPID   Moves            `wire:"id_to_pid"`
		PIDToID   Moves            `wire:"pid_to_id"`
		PIDToPID  Moves            `wire:"pid_to_pid"`
	}
	MakeArenaReply struct {
		FD   int64  `wire:"fd"`
		Size uint64 `wire:"size"`
		Base uint64 `wire:"base"`
	}
	FinalizeArenaRequest struct {
		FD      int64    `wire:"fd"`
		Offsets []uint64 `wire:"offsets"`
		Sizes   []uint64 `wire:"sizes"`
	}
	LockRequest struct {
		Key string `wire:"key"`
	}
	AcquireLockReply struct {
		Result bool   `wire:"result"`
		Key    string `wire:"key"`
	}
	ReleaseLockReply struct {
		Result bool `wire:"result"`
	}
	MetaReply struct {
		Meta wirejson.Value `wire:"meta"`
	}
	DebugRequest struct {
		Debug wirejson.Value `wire:"debug,optional"`
	}
	DebugReply struct {
		Result wirejson.Value `wire:"result"`
	}
)

var (
	NewSession     = Define[NewSessionRequest, NewSessionReply]("new_session_request", "new_session_reply", "an isolated session on a socket of its own")
	DeleteSession  = Define[None, None]("delete_session_request", "delete_session_reply", "end this session; then the connection is closed")
	MoveBuffers    = Define[MoveRequest, None]("move_buffers_ownership_request", "move_buffers_ownership_reply", "take blobs over from another session")
	MakeArena      = Define[SizeRequest, MakeArenaReply]("make_arena_request", "make_arena_reply", "a private file that becomes blobs when finalized")
	FinalizeArena  = Define[FinalizeArenaRequest, None]("finalize_arena_request", "finalize_arena_reply", "turn spans of an arena into blobs")
	AcquireLock    = Define[LockRequest, AcquireLockReply]("acquire_lock_request", "acquire_lock_reply", "take a lock, waiting for it")
	ReleaseLock    = Define[LockRequest, ReleaseLockReply]("release_lock_request", "release_lock_reply", "give a lock back")
	ClusterMeta    = Define[None, MetaReply]("cluster_meta", "cluster_meta", "the instances of the cluster")
	InstanceStatus = Define[None, MetaReply]("instance_status_request", "instance_status_reply", "memory and connections of this instance")
	Debug          = Define[DebugRequest, DebugReply]("debug_command", "debug_reply", "accepted and ignored")
)
