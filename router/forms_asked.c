#include "router/forms.h"
#include "router/forms_parts.h"

/* What the routes ask for. */

#define TRUTH "{'type':['boolean','null']}"
#define ANYTHING "{}"
#define MILLISECONDS "{'type':['integer','null'],'minimum':1,'maximum':86400000}"
#define PRIORITY "{'type':['integer','null'],'minimum':-2147483648,'maximum':2147483647}"
#define IDS "{'type':'array','minItems':1,'items':" TOKEN_ID "}"
#define WORDS \
    "{'type':'array','minItems':1,'maxItems':4096,'items':{'type':'string','minLength':1}}"
#define LISTS_OF_IDS "{'type':'array','minItems':1,'maxItems':4096,'items':" IDS "}"
#define TEXT_OF_ONE "{'type':'string','minLength':1}"

/* The same in every dialect of ours (api_read_routing). */
#define RID "'type':['string','null'],'minLength':1,'maxLength':63"
#define RIDS \
    "{'anyOf':[{" RID \
    "},{'type':'array','minItems':1,'maxItems':4096,'uniqueItems':true,'items':{" \
    "'type':'string','minLength':1,'maxLength':63}}]}"
#define ROUTING \
    {"rid", "{" RID "}", "the request's id: /abort_request knows it by that", false}, ROUTED
#define ROUTED \
    {"extra_key", WORD, "requests with another one share no cached prefix with this", false}, \
        LIMITED
#define LIMITED \
    {"priority", PRIORITY, "higher goes first, under --schedule-policy priority", false}, \
        {"cache_salt", WORD, "the same, by another name", false}, \
        {"timeout_ms", MILLISECONDS, "from its arrival on", false}, { \
        "queue_timeout_ms", MILLISECONDS, "until its first step", false \
    }

/* One for all prompts, or a list of one for each. */
#define OR_EACH(schema) \
    "{'anyOf':[" schema ",{'type':'array','minItems':1,'maxItems':4096,'items':" schema "}]}"
#define LOGPROB_START "{'type':['integer','null'],'minimum':-1,'maximum':16777216}"
#define TOP_LOGPROBS "{'type':['integer','null'],'minimum':0,'maximum':128}"
#define SAMPLING "{'anyOf':[{'$ref':'#/components/schemas/SamplingParams'},{'type':'null'}]}"
#define IDS_OF_ONE "{'type':['array','null'],'maxItems':1024,'items':" TOKEN_ID "}"
static const struct form_field generate[] = {
    {"text", "{'anyOf':[" TEXT_OF_ONE "," WORDS ",{'type':'null'}]}",
     "the prompt, or a list of them; this or input_ids", false},
    {"input_ids", "{'anyOf':[" IDS "," LISTS_OF_IDS ",{'type':'null'}]}",
     "the prompt as token ids, or a list of such", false},
    {"sampling_params", OR_EACH(SAMPLING),
     "how the next token is picked, and when it ends; a list: for each prompt", false},
    {"stream", TRUTH,
     "events as they come; each holds all so far, unless --incremental-streaming-output", false},
    {"return_logprob", OR_EACH(TRUTH), "log probabilities in meta_info; a list: for each prompt",
     false},
    {"logprob_start_len", OR_EACH(LOGPROB_START),
     "of the prompt's tokens from there on; -1: of none", false},
    {"top_logprobs_num", OR_EACH(TOP_LOGPROBS), "and of so many likeliest tokens at each place",
     false},
    {"token_ids_logprob",
     "{'anyOf':[" TOKEN_ID "," IDS_OF_ONE ",{'type':'array','minItems':1,'maxItems':4096,"
     "'items':" IDS_OF_ONE "}]}",
     "and of these", false},
    {"return_text_in_logprobs", TRUTH, "with the text of each token", false},
    {"return_prompt_token_ids", TRUTH, "prompt_token_ids in the answer", false},
    {"rid", RIDS, "the request's id, or one for each prompt: /abort_request knows it by that",
     false},
    {"extra_key", OR_EACH(WORD),
     "requests with another one share no cached prefix with this; a list: for each prompt", false},
    LIMITED,
};
const struct form form_sampling_params = {
    "SamplingParams", "names, ranges and defaults are SGLang's; null means the default",
    .params = FORM_NATIVE_PARAMS};
const struct form form_generate = {"Generate", "SGLang's own form", FIELDS(generate)};

#define OPENAI_COMMON \
    {"model", WORD, "any name is taken: there is one model", false}, \
        {"stream", TRUTH, "events as they come", false}, \
        {"stream_options", \
         "{'type':['object','null'],'properties':{'include_usage':" TRUTH \
         ",'continuous_usage_stats':" TRUTH "}}", \
         "usage in a last event of its own, or in all", false}, \
        {"response_format", "{'type':['object','null'],'properties':{'type':" WORD "}}", \
         "its type may be text", false}, \
        ROUTING

static const struct form_field completions[] = {
    {"prompt", "{'anyOf':[" TEXT_OF_ONE "," WORDS "," IDS "," LISTS_OF_IDS "]}",
     "text or token ids, or a list of either", true},
    {"echo", TRUTH, "the prompt before the answer, with its logprobs", false},
    {"add_special_tokens", TRUTH, "false: a text gets no beginning-of-text token", false},
    {"best_of", "{'type':['integer','null'],'minimum':1,'maximum':128}",
     "so many are drawn, and the n likeliest told; not in a stream", false},
    {"logprobs", "{'type':['integer','null'],'minimum':0,'maximum':128}",
     "log probabilities, and of so many likeliest tokens", false},
    OPENAI_COMMON,
};
const struct form form_completions = {"Completions", "OpenAI's completions", FIELDS(completions),
                                      .params = FORM_OPENAI_PARAMS};

#define CHAT_MESSAGE \
    "{'type':'object','required':['role'],'properties':{'role':{'type':'string'},'content':{" \
    "'anyOf':[{'type':['string','null']},{'type':'array','items':{'type':'object','required':[" \
    "'type'],'properties':{'type':{'const':'text'}}}}]}}}"

static const struct form_field chat[] = {
    {"messages", "{'type':'array','minItems':1,'items':" CHAT_MESSAGE "}",
     "role and content of each; the model's template makes the prompt", true},
    {"tools", "{'type':['array','null']}",
     "what it may call; refused when the model's template would not show them; calls are read by "
     "--tool-call-parser",
     false},
    {"tool_choice", ANYTHING, "auto or none", false},
    {"parallel_tool_calls", TRUTH, "false: one call an answer", false},
    {"logprobs", TRUTH, "log probabilities of the answer", false},
    {"top_logprobs", "{'type':['integer','null'],'minimum':0,'maximum':128}",
     "and of so many likeliest tokens; needs logprobs", false},
    {"continue_final_message", TRUTH, "true: the last message is begun, not over", false},
    {"add_generation_prompt", TRUTH, "false: the prompt ends with the last message", false},
    {"reasoning_effort",
     "{'anyOf':[{'enum':['none','minimal','low','medium','high','xhigh','max',null]},"
     "{'type':'number','minimum':0,'exclusiveMaximum':1}]}",
     "a variable for the template; none: it does not think", false},
    {"separate_reasoning", TRUTH, "false: reasoning stays in the content", false},
    {"include_reasoning", TRUTH, "false: reasoning is in no part of the answer", false},
    {"chat_template_kwargs",
     "{'type':['object','null'],'properties':{'enable_thinking':" TRUTH "}}",
     "variables for the template", false},
    OPENAI_COMMON,
};
const struct form form_chat = {"Chat", "OpenAI's chat completions", FIELDS(chat),
                               .params = FORM_OPENAI_PARAMS};

static const struct form_field responses[] = {
    {"input",
     "{'anyOf':[{'type':'string'},{'type':'array','minItems':1,'items':{'type':'object'}}]}",
     "a text, or items: messages, function calls and their outputs", true},
    {"instructions", WORD, "what stands before all", false},
    {"tools", "{'type':['array','null']}", "of type function", false},
    {"max_output_tokens", "{'type':['integer','null'],'minimum':0,'maximum':16777216}",
     "where the answer is cut", false},
    {"temperature", "{'type':['number','null'],'minimum':0,'maximum':1000000}", "0: greedy", false},
    {"stream", TRUTH, "events as they come", false},
    {"reasoning", OBJECT, "effort: as chat completions have it", false},
    {"metadata", OBJECT, "stands in the answer", false},
    {"model", WORD, "what /v1/models lists; another one is 404", false},
};
const struct form form_responses = {"Responses", "OpenAI's responses; nothing is stored",
                                    FIELDS(responses)};

#define CLAUDE_MESSAGES \
    "{'type':'array','minItems':1,'items':{'type':'object','required':['role','content']}}"

static const struct form_field messages[] = {
    {"messages", CLAUDE_MESSAGES,
     "role and content: a text, or blocks; the answer goes on from an assistant's that is last",
     true},
    {"max_tokens", "{'type':'integer','minimum':0,'maximum':16777216}", "where the answer is cut",
     true},
    {"system", ANYTHING, "a text, or text blocks", false},
    {"stop_sequences", "{'type':['array','string','null']}", "texts that end it", false},
    {"temperature", "{'type':['number','null'],'minimum':0,'maximum':1000000}", "0: greedy", false},
    {"stream", TRUTH, "events as they come", false},
    {"tools", ANYTHING, "name, description, input_schema of each", false},
    {"tool_choice", ANYTHING, "of type auto or none", false},
    {"thinking", ANYTHING, "of type enabled or disabled", false},
    {"output_config", OBJECT, "effort: as chat completions have it", false},
    {"model", WORD, "any name is taken", false},
};
const struct form form_messages = {"Messages", "Anthropic's messages", FIELDS(messages)};
static const struct form_field count[] = {
    {"messages", CLAUDE_MESSAGES, "as /v1/messages takes them, with system and tools", true},
};
const struct form form_count = {"CountTokens", "a prompt whose tokens are counted", FIELDS(count)};

#define OLLAMA_OPTIONS \
    {"options", OBJECT, \
     "temperature, top_p, top_k, min_p, stop, seed, num_predict, repeat_penalty and the other " \
     "two", \
     false}, \
        {"stream", TRUTH, "lines as they come: unless it is false", false}, \
        {"think", ANYTHING, "false: the template is told not to; low, medium, high: how much", \
         false}, \
    { \
        "model", WORD, "any name is taken", false \
    }

static const struct form_field ollama_chat[] = {
    {"messages", "{'type':['array','null'],'items':" CHAT_MESSAGE "}",
     "role and content of each; without any, nothing is asked but that the model be loaded", false},
    {"tools", ANYTHING, "what it may call", false},
    OLLAMA_OPTIONS,
};
static const struct form_field ollama_generate[] = {
    {"prompt", WORD, "what the user says; without it, as above", false},
    {"system", ANYTHING, "what stands before it", false},
    {"raw", TRUTH, "true: the prompt as it is, in no template", false},
    OLLAMA_OPTIONS,
};
const struct form form_ollama_chat = {"OllamaChat", "Ollama's chat", FIELDS(ollama_chat)};
const struct form form_ollama_generate = {"OllamaGenerate", "Ollama's generate",
                                          FIELDS(ollama_generate)};
const struct form form_ollama_show = {"OllamaShow", "any body: there is one model", .schema = "{}"};

static const struct form_field tokenize[] = {
    {"prompt", "{'anyOf':[" STRING "," LIST_OF(STRING) "]}", "a text, or a list of them", true},
    {"add_special_tokens", TRUTH, "false: without a beginning-of-text token", false},
};
const struct form form_tokenize = {"Tokenize", "a text to be made token ids", FIELDS(tokenize)};
static const struct form_field detokenize[] = {
    {"tokens",
     "{'anyOf':[" LIST_OF("{'type':'integer','minimum':0}") "," LIST_OF(
         LIST_OF("{'type':'integer','minimum':0}")) "]}",
     "ids within the vocabulary, or a list of such lists", true},
    {"skip_special_tokens", TRUTH, "false: their texts, too", false},
};
const struct form form_detokenize = {"Detokenize", "token ids to be made a text",
                                     FIELDS(detokenize)};
static const struct form_field template_[] = {
    {"messages", LISTED, "role and content of each", true},
    {"tools", ANYTHING, "as the template is given them", false},
    {"add_generation_prompt", ANYTHING, "true: ends where the answer begins", false},
    {"continue_final_message", ANYTHING, "true: the last message is begun, not over", false},
    {"documents", ANYTHING, "as the template is given them", false},
    {"chat_template_kwargs", ANYTHING, "variables of the template", false},
};
const struct form form_template = {"ApplyTemplate", "messages to be made a prompt",
                                   FIELDS(template_)};
#define SPOKEN \
    { "text", STRING, "what the model wrote", true }
static const struct form_field parse_calls[] = {
    SPOKEN,
    {"tool_call_parser", WORD, "one of --tool-call-parser; else the server's own", false},
    {"tools", ANYTHING,
     "what it may call: of which types arguments are, where the model does not write it", false},
};
const struct form form_parse_calls = {"ParseFunctionCall", "a text that may have calls",
                                      FIELDS(parse_calls)};
static const struct form_field separate[] = {
    SPOKEN,
    {"reasoning_parser", WORD, "one of --reasoning-parser; else the server's own", false},
};
const struct form form_separate = {"SeparateReasoning", "a text that may have reasoning",
                                   FIELDS(separate)};
static const struct form_field abort_[] = {
    {"rid", WORD, "an id, or how several begin", false},
    {"abort_all", TRUTH, "in place of an id", false},
};
const struct form form_abort = {"Abort", "requests to be ended", FIELDS(abort_)};
static const struct form_field update[] = {
    {"model_path", "{'type':'string','minLength':1}", "a file or folder on the workers' machines",
     true},
    {"load_format", "{'enum':['auto','safetensors','gguf','',null]}", "what lies there says so",
     false},
    {"flush_cache", "{'enum':[true,null]}", "what other weights have cached cannot be kept", false},
    {"abort_all_requests", TRUTH, "instead of going on with the new weights", false},
};
const struct form form_update = {"UpdateWeights", "where other weights lie", FIELDS(update)};

/* A text, token ids, or a list of either. */
#define INPUTS(n) \
    "{'anyOf':[" TEXT_OF_ONE "," IDS ",{'type':'array','minItems':1,'maxItems':" n \
    ",'items':{'anyOf':[" TEXT_OF_ONE "," IDS "]}}]}"
#define VECTOR_COMMON \
    {"model", WORD, "any name is taken: there is one model", false}, \
        {"stream", "{'enum':[false,null]}", "these answers come whole", false}, ROUTING
#define TRUNCATE \
    { "truncate", TRUTH, "what is longer than the model can take is cut, not refused", false }
#define DIMENSIONS \
    { \
        "dimensions", "{'type':['integer','null'],'minimum':1}", \
            "so many numbers of each, made of length 1 again", false \
    }

static const struct form_field embeddings[] = {
    {"input", INPUTS("2048"), "what is to be embedded", true},
    {"encoding_format", "{'enum':['float','base64',null]}", "base64: of little-endian float32",
     false},
    DIMENSIONS,
    TRUNCATE,
    VECTOR_COMMON,
};
const struct form form_embeddings = {"Embeddings", "OpenAI's embeddings", FIELDS(embeddings)};
#define ENCODED_INPUTS \
    {"text", "{'anyOf':[" TEXT_OF_ONE "," WORDS ",{'type':'null'}]}", \
     "a text, or a list of them; this or input_ids", false}, \
    { \
        "input_ids", "{'anyOf':[" IDS "," LISTS_OF_IDS ",{'type':'null'}]}", \
            "token ids, or a list of such", false \
    }
static const struct form_field encode[] = {ENCODED_INPUTS, DIMENSIONS, TRUNCATE, VECTOR_COMMON};
const struct form form_encode = {"Encode", "SGLang's embeddings", FIELDS(encode)};
static const struct form_field classify[] = {ENCODED_INPUTS, TRUNCATE, VECTOR_COMMON};
const struct form form_classify = {"Classify", "texts for a classifier", FIELDS(classify)};
static const struct form_field ollama_embed[] = {
    {"input", "{'anyOf':[" TEXT_OF_ONE "," WORDS "]}", "a text, or a list of them", true},
    DIMENSIONS,
    TRUNCATE,
    VECTOR_COMMON,
};
const struct form form_ollama_embed = {"OllamaEmbed", "Ollama's embeddings", FIELDS(ollama_embed)};
static const struct form_field ollama_embeddings[] = {
    {"prompt", TEXT_OF_ONE, "one text", true},
    TRUNCATE,
    VECTOR_COMMON,
};
const struct form form_ollama_embeddings = {"OllamaEmbeddings", "their old form",
                                            FIELDS(ollama_embeddings)};
static const struct form_field rerank[] = {
    {"query", TEXT_OF_ONE, "what is asked", true},
    {"documents",
     "{'type':'array','minItems':1,'maxItems':2048,'items':{'anyOf':[" STRING
     ",{'type':'object','required':['text'],'properties':{'text':" STRING "}}]}}",
     "what may answer it", true},
    {"top_n", "{'type':['integer','null'],'minimum':1}", "only so many, the best ones", false},
    {"return_documents", TRUTH, "false: their numbers alone", false},
    TRUNCATE,
    VECTOR_COMMON,
};
const struct form form_rerank = {"Rerank", "documents to be ranked", FIELDS(rerank)};
static const struct form_field score[] = {
    {"query", "{'anyOf':[" STRING ",{'type':'array','items':" TOKEN_ID "}]}",
     "what stands before each item, as a text or as token ids", true},
    {"items",
     "{'anyOf':[" STRING ",{'type':'array','minItems':1,'maxItems':2048,'items':{'anyOf':[" STRING
     ",{'type':'array','items':" TOKEN_ID "}]}}]}",
     "what stands behind it, in the same form", true},
    {"label_token_ids",
     "{'anyOf':[{'type':'array','minItems':1,'maxItems':1024,'items':" TOKEN_ID
     "},{'type':'null'}]}",
     "the tokens whose chance to be next is the score; a classifier has labels of its own", false},
    {"apply_softmax", TRUTH, "shares of the labels among each other", false},
    {"item_first", TRUTH, "the item stands before the query", false},
    {"temperature", "{'type':['number','null'],'exclusiveMinimum':0,'maximum':1000000}",
     "of the chances; 1", false},
    VECTOR_COMMON,
};
const struct form form_score = {"Score", "items to be judged by the model", FIELDS(score)};

static const struct form_field top[] = {
    {"top", "{'type':'integer','minimum':0,'maximum':100}", "so many of the most used prefixes",
     false},
};
const struct form form_top = {"Top", "how much of the tree to show", FIELDS(top)};
static const struct form_field flush[] = {
    {"timeout", "{'type':'number','minimum':0,'maximum':3600}",
     "seconds to wait at most until nobody needs it", false},
};
const struct form form_flush = {"Flush", "when to forget it", FIELDS(flush)};
static const struct form_field loads_of[] = {
    {"dp_rank", "{'type':'integer','minimum':0}", "of one replica; without it: of all", false},
    {"include",
     "{'type':'string','pattern':'^(core|memory|spec|lora|disagg|queues|all)(,(core|memory|spec|"
     "lora|disagg|queues|all))*$'}",
     "sections of it; without them: all", false},
    {"format", "{'enum':['json','prometheus']}", "json, unless it is prometheus", false},
};
const struct form form_loads_of = {"LoadsOf", "which part of the load", FIELDS(loads_of)};
